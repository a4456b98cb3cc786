"""How well held-out items are ranked: NDCG@10 against the whole catalogue."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.metrics import ndcg as ndcg_of
from encoder.evaluation.ranking import ranks_of
from encoder.sequence_rows import Ints

K: Final = 10
_CHUNK_SCORES: Final = 4_194_304


class HeldOut(NamedTuple):
    """What is asked of n users: the row of the held-out item, and the items that are not ranked.

    ``masked`` holds rows, those of user i at ``borders[i]:borders[i + 1]``; none where people buy
    again, since the item may be among them.
    """

    targets: Ints  # (n,)
    masked: Ints
    borders: Ints  # (n + 1,)

    def chunks(self, n_items: int) -> list[slice]:
        """Give users in chunks whose scores fit in memory."""
        size = max(1, _CHUNK_SCORES // max(1, n_items))
        return [slice(first, first + size) for first in range(0, len(self.targets), size)]

    def mask(self, scores: NDArray[np.float32], part: slice) -> NDArray[np.float32]:
        """Set what is not ranked to -inf in (m, V) scores; give those of the held-out items."""
        first, stop, _ = part.indices(len(self.targets))
        borders = self.borders[first : stop + 1]
        users = np.repeat(np.arange(stop - first), np.diff(borders))
        targets = self.targets[part]
        own = scores[np.arange(len(targets)), targets].copy()
        scores[users, self.masked[borders[0] : borders[-1]]] = -np.inf
        scores[np.arange(len(targets)), targets] = own
        return own


def ndcg(scores: NDArray[np.float32], held_out: HeldOut, part: slice) -> NDArray[np.float64]:
    """Give NDCG@10 of the users of a chunk, as :mod:`encoder.evaluation.metrics` reckons it.

    Args:
        scores: (m, V) of the users in ``part``; overwritten where masked.
    """
    own = held_out.mask(scores, part)
    return ndcg_of(ranks_of(scores, own), K)


def mean_ndcg(users: NDArray[np.float32], items: NDArray[np.float32], held_out: HeldOut) -> float:
    """Give mean NDCG@10 of user vectors (n, D) over items (V, D), by dot product; 0 of no user."""
    if not len(users):
        return 0.0
    gains = [ndcg(users[part] @ items.T, held_out, part) for part in held_out.chunks(len(items))]
    return float(np.concatenate(gains).mean())
