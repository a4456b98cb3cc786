"""Rankers that know events and no text; each is fitted on training events alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from encoder.evaluation.protocols import Split
from encoder.spans import spread
from interest.columns import columns
from interest.window import BehaviourWindow

#: How much less each older event says; as good for EASE on Beauty as any, for all alike.
POSITION_DECAY: Final = 0.8
#: The inverse of EASE takes N² numbers and N³ steps: 1.6 GB and minutes here.
EASE_MAX_ITEMS: Final = 20_000
_EASE_L2: Final = 300.0
#: Of a user's distinct items only those so near to each other make a pair: bounds the pairs.
_MAX_LAG: Final = 100
#: So many pairs are gathered before they are counted: 128 MB.
_MERGED_KEYS: Final = 2**24


class Popularity:
    """Scores an item by how often it was trained on, whoever asks."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        counts = np.bincount(dataset.items[split.train], minlength=dataset.n_items)
        self._counts = counts.astype(np.float32)  # (N,)

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        """See :class:`encoder.evaluation.ranking.Ranker`."""
        return np.tile(self._counts, (len(windows), 1))


class CoOccurrence:
    """Scores an item by the users it shares with the items of the window.

    The cosine of two columns of the user-item matrix, n(i, j) / √(n(i) n(j)) (Sarwar et al. 2001,
    section 3.1.1, without ratings), summed over the window with decay by position. Of a user's
    items only those at most 100 apart count as a pair.
    """

    def __init__(self, dataset: Dataset, split: Split) -> None:
        n = dataset.n_items
        users, items = _distinct(dataset, split)
        alone = np.bincount(items, minlength=n)  # (N,)
        keys, counts = _counted(
            np.concatenate([ours * n + theirs, theirs * n + ours])
            for ours, theirs in _pairs(users, items, _MAX_LAG)
        )
        item, self._neighbours = np.divmod(keys, n)  # (P,)
        self._weights = counts / np.sqrt(alone[item] * alone[self._neighbours])
        self._starts = np.searchsorted(item, np.arange(n + 1))  # (N + 1,)
        self._n_items = n

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        """See :class:`encoder.evaluation.ranking.Ranker`."""
        window, items, recency = _recency(windows)
        starts = self._starts[items]
        lengths = self._starts[items + 1] - starts  # (E,) neighbours of each event's item
        event, place = spread(starts, lengths)
        cells = window[event] * self._n_items + self._neighbours[place]
        sums = np.bincount(
            cells, self._weights[place] * recency[event], len(windows) * self._n_items
        )
        return sums.astype(np.float32).reshape(len(windows), self._n_items)


class Ease:
    """EASE (Steck 2019, "Embarrassingly Shallow Autoencoders", equations 8 and 9).

    Differs in the query: its events count by decay of their position, not all alike.
    """

    def __init__(self, dataset: Dataset, split: Split) -> None:
        n = dataset.n_items
        users, items = _distinct(dataset, split)
        gram = torch.diag(torch.from_numpy(np.bincount(items, minlength=n) + _EASE_L2).float())
        flat = gram.view(-1).numpy()
        for ours, theirs in _pairs(users, items, n):
            # A pair may come twice in one step, so not +=.
            np.add.at(flat, ours * n + theirs, 1)
            np.add.at(flat, theirs * n + ours, 1)
        factor = torch.linalg.cholesky(gram)
        del gram, flat
        inverse = torch.cholesky_inverse(factor)  # P of the paper, (N, N)
        del factor
        self._weights = inverse.div_(-inverse.diagonal().clone())  # B, columns scaled
        self._weights.fill_diagonal_(0)

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        """See :class:`encoder.evaluation.ranking.Ranker`."""
        window, items, recency = _recency(windows)
        with torch.inference_mode():
            scores = torch.nn.functional.embedding_bag(
                torch.from_numpy(items),
                self._weights,
                torch.from_numpy(np.searchsorted(window, np.arange(len(windows)))),
                mode="sum",
                per_sample_weights=torch.from_numpy(recency.astype(np.float32)),
            )  # (B, N)
        return scores.numpy()


def _distinct(dataset: Dataset, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give users and items of the training events, each pair once, where it first came."""
    users, items = dataset.users()[split.train], dataset.items[split.train].astype(np.int64)
    _, first = np.unique(users * dataset.n_items + items, return_index=True)
    first.sort()
    return users[first], items[first]


def _pairs(
    users: NDArray[np.int64], items: NDArray[np.int64], max_lag: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs of items of one user that stand 1, 2, … apart, while there are any."""
    for lag in range(1, max_lag + 1):
        same = np.flatnonzero(users[lag:] == users[:-lag])
        if not len(same):
            return
        yield items[same], items[same + lag]


def _counted(
    parts: Iterable[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the distinct keys of all parts, ascending, and how often each comes."""
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    waiting: list[NDArray[np.int64]] = []
    for part in itertools.chain(parts, [None]):
        if part is not None:
            waiting.append(part)
        if part is None or sum(map(len, waiting)) > _MERGED_KEYS:
            fresh, n_fresh = np.unique(np.concatenate([keys[:0], *waiting]), return_counts=True)
            keys, place = np.unique(np.concatenate([keys, fresh]), return_inverse=True)
            counts = np.bincount(place, np.concatenate([counts, n_fresh])).astype(np.int64)
            waiting.clear()
    return keys, counts


def _recency(
    windows: Sequence[BehaviourWindow],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Give window, item and weight of each event, (E,); events without an item are left out."""
    events = columns(windows)
    window = np.repeat(np.arange(len(windows)), np.diff(events.starts))
    position = events.starts[1:][window] - 1 - np.arange(len(window))
    kept = events.items > 0
    return (
        window[kept],
        events.items[kept].astype(np.int64) - 1,
        POSITION_DECAY ** position[kept].astype(np.float64),
    )
