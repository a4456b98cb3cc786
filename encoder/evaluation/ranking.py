"""From scores to the rank of the target and the best items, a chunk of targets at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from encoder.evaluation.protocols import Cases
from encoder.spans import spread
from interest.window import BehaviourWindow

#: Scores that are held at once, of one ranker: 64 MB, whatever the catalogue's size.
CHUNK_SCORES: Final = 2**24
#: Items kept of each ranking.
N_BEST: Final = 20
#: The score of an item that a ranker cannot retrieve: it lies below every other.
NOT_RETRIEVABLE: Final = np.float32(-1e30)


class Ranker(Protocol):
    """Scores the whole catalogue for some windows."""

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        """Give a score for each item, higher is better; (B, N), row i belongs to windows[i].

        The windows are of :func:`encoder.evaluation.histories.item_table`: the number of an item
        is its row + 1. The array is the caller's to change.
        """


class Ranked(NamedTuple):
    """What is kept of a ranker's rankings; B targets."""

    #: (B,) items above the target, ties counting half; 0 is first. Items of the history are
    #: left out of the ranking, but for the target.
    ranks: NDArray[np.float64]
    #: (B,) the same with the items of the history left in.
    unmasked_ranks: NDArray[np.float64]
    #: (B, 20) rows of the best items, best first, without those of the history; -1 for none.
    best: NDArray[np.int32]


def chunk_size(n_items: int) -> int:
    """Give how many targets are scored at once."""
    return max(1, CHUNK_SCORES // n_items)


class Chunk:
    """The targets and histories of a stretch of cases, as rows of items.

    Args:
        order: the columns in a random order, which decides between best items of equal score, so
            that the order of the file does not.
    """

    def __init__(self, dataset: Dataset, cases: Cases, order: NDArray[np.int64]) -> None:
        self._order = torch.from_numpy(order)
        self._targets = dataset.items[cases.places].astype(np.int64)  # (B,)
        lengths = cases.places - dataset.starts[cases.users]  # (B,)
        self._history_of, places = spread(dataset.starts[cases.users], lengths)  # (H,)
        self._history = dataset.items[places].astype(np.int64)  # (H,)

    def rank(self, scores: NDArray[np.float32]) -> Ranked:
        """Rank the catalogue by scores (B, N), which are changed.

        Raises:
            FloatingPointError: a score is NaN.
        """
        if np.isnan(scores).any():
            raise FloatingPointError("a ranker gives NaN")
        rows = np.arange(len(scores))
        target = scores[rows, self._targets]  # (B,)
        unmasked = ranks_of(scores, target)
        scores[self._history_of, self._history] = -np.inf
        scores[rows, self._targets] = target
        return Ranked(ranks_of(scores, target), unmasked, self._best(scores))

    def _best(self, scores: NDArray[np.float32]) -> NDArray[np.int32]:
        n = min(N_BEST, scores.shape[1])
        found = torch.from_numpy(scores)[:, self._order].topk(n)
        rows = self._order[found.indices].numpy().astype(np.int32)  # (B, n)
        rows[np.isneginf(found.values.numpy())] = -1
        return np.pad(rows, ((0, 0), (0, N_BEST - n)), constant_values=-1)


def ranks_of(scores: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give (B,) items of scores (B, N) above the target's (B,), ties counting half; 0 is first."""
    above = (scores > target[:, np.newaxis]).sum(axis=1)
    equal = (scores == target[:, np.newaxis]).sum(axis=1) - 1  # itself
    ranks: NDArray[np.float64] = above + equal / 2
    return ranks
