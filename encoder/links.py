"""Links between items: which lead to which, learned from what people had before.

EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", equations 8 and 9) for as
many items as its inverse can be made of, else cosines of who had both (Sarwar et al. 2001,
section 3.1.1, without ratings). We differ in keeping the strongest links to each item alone, and no
negative one: so they fit in a sparse vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

#: The inverse of EASE takes N² numbers and N³ steps: 1.6 GB and minutes here.
EASE_MAX_ITEMS: Final = 20_000
EASE_L2: Final = 300.0
#: Links to an item that are kept.
N_LINKS: Final = 64
#: Of a user's distinct items only those so near to each other make a pair: bounds the pairs.
MAX_LAG: Final = 100
#: So many pairs are gathered before they are counted: 128 MB.
_MERGED_KEYS: Final = 2**24
#: Items whose links are chosen at once.
_BLOCK: Final = 1024

Ints = NDArray[np.int64]


class Links(NamedTuple):
    """Links by the item they lead to: those to item i are ``starts[i]:starts[i + 1]``."""

    starts: Ints  # (N + 1,)
    sources: NDArray[np.int32]  # (nnz,) rows of items, ascending for each item
    weights: NDArray[np.float32]  # (nnz,) above 0


def fit_links(users: Ints, items: Ints, n_items: int, n_links: int = N_LINKS) -> Links:
    """Learn links of a log.

    Args:
        users: (M,) of each event, user by user.
        items: (M,) row of its item; of a user's events with one item the first counts.
    """
    users, items = first_of_each(users, items, n_items)
    if n_items <= EASE_MAX_ITEMS:
        return _strongest(ease_weights(users, items, n_items), n_links)
    counted = co_occurrence(users, items, n_items)
    return _strongest_of_lists(counted, n_items, n_links)


def first_of_each(users: Ints, items: Ints, n_items: int) -> tuple[Ints, Ints]:
    """Give users and items, each pair once, where it first came."""
    _, first = np.unique(users * n_items + items, return_index=True)
    first.sort()
    return users[first], items[first]


def ease_weights(users: Ints, items: Ints, n_items: int) -> torch.Tensor:
    """Give the weights of EASE, (N, N): from the row's item to the column's; diagonal 0.

    Args:
        users: (M,) user by user; each pair of user and item once.
        items: (M,)
    """
    counts = np.bincount(items, minlength=n_items)
    gram = torch.diag(torch.from_numpy(counts + EASE_L2).float())
    flat = gram.view(-1).numpy()
    for ours, theirs in pairs(users, items, n_items):
        # A pair may come twice in one step, so not +=.
        np.add.at(flat, ours * n_items + theirs, 1)
        np.add.at(flat, theirs * n_items + ours, 1)
    factor = torch.linalg.cholesky(gram)
    del gram, flat
    inverse = torch.cholesky_inverse(factor)  # P of the paper, (N, N)
    del factor
    weights: torch.Tensor = inverse.div_(-inverse.diagonal().clone())  # B, columns scaled
    return weights.fill_diagonal_(0)


class CoOccurring(NamedTuple):
    """Pairs of items that somebody had both of, both ways round, ordered by ``item``."""

    item: Ints  # (P,)
    neighbour: Ints  # (P,)
    weight: NDArray[np.float64]  # (P,) cosine of who had them


def co_occurrence(users: Ints, items: Ints, n_items: int) -> CoOccurring:
    """Give n(i, j) / √(n(i) n(j)) of items at most 100 apart in somebody's list.

    Args:
        users: (M,) user by user; each pair of user and item once.
        items: (M,)
    """
    alone = np.bincount(items, minlength=n_items)  # (N,)
    keys, counts = _counted(
        np.concatenate([ours * n_items + theirs, theirs * n_items + ours])
        for ours, theirs in pairs(users, items, MAX_LAG)
    )
    item, neighbour = np.divmod(keys, n_items)
    return CoOccurring(item, neighbour, counts / np.sqrt(alone[item] * alone[neighbour]))


def pairs(users: Ints, items: Ints, max_lag: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield the pairs of items of one user that stand 1, 2, … apart, while there are any."""
    for lag in range(1, max_lag + 1):
        same = np.flatnonzero(users[lag:] == users[:-lag])
        if not len(same):
            return
        yield items[same], items[same + lag]


def _counted(parts: Iterable[Ints]) -> tuple[Ints, Ints]:
    """Give the distinct keys of all parts, ascending, and how often each comes."""
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    waiting: list[Ints] = []
    for part in itertools.chain(parts, [None]):
        if part is not None:
            waiting.append(part)
        if part is None or sum(map(len, waiting)) > _MERGED_KEYS:
            fresh, n_fresh = np.unique(np.concatenate([keys[:0], *waiting]), return_counts=True)
            keys, place = np.unique(np.concatenate([keys, fresh]), return_inverse=True)
            counts = np.bincount(place, np.concatenate([counts, n_fresh])).astype(np.int64)
            waiting.clear()
    return keys, counts


def _strongest(weights: torch.Tensor, n_links: int) -> Links:
    """Keep the strongest links to each item of a whole matrix, (N, N)."""
    n_items = len(weights)
    n_links = min(n_links, n_items)
    found: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    for first in range(0, n_items, _BLOCK):
        # To the items of the block: their columns.
        best = weights[:, first : first + _BLOCK].T.topk(n_links)  # (b, n_links)
        found.append(best.indices.numpy())
        values.append(best.values.numpy())
    item = np.repeat(np.arange(n_items), n_links)
    return _links(item, np.concatenate(found).ravel(), np.concatenate(values).ravel(), n_items)


def _strongest_of_lists(counted: CoOccurring, n_items: int, n_links: int) -> Links:
    """Keep the strongest links to each item; of equal ones the first."""
    order = np.lexsort((counted.neighbour, -counted.weight, counted.item))
    item = counted.item[order]
    rank = np.arange(len(item)) - np.searchsorted(item, item)
    kept = order[rank < n_links]
    return _links(
        counted.item[kept],
        counted.neighbour[kept],
        counted.weight[kept].astype(np.float32),
        n_items,
    )


def _links(item: Ints, source: Ints, weight: NDArray[np.float32], n_items: int) -> Links:
    kept = np.flatnonzero(weight > 0)
    kept = kept[np.lexsort((source[kept], item[kept]))]
    starts = np.searchsorted(item[kept], np.arange(n_items + 1))
    return Links(starts, source[kept].astype(np.int32), weight[kept])
