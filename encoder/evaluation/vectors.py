"""Rankers over vectors: dense, sparse, and weighted sums of rankers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.ranking import NOT_RETRIEVABLE, Ranker
from encoder.sparse_decay import SparseDecay
from encoder.sparse_product import SparseProduct
from encoder.title_terms import SparseRows
from interest.encoded_items import EncodedItems
from interest.ports import UserEncoder
from interest.window import BehaviourWindow


class VectorRanker:
    """Scores by the dot product of user and item vectors, as retrieval does.

    Args:
        items: (N, D), one row per item; a row of zeros is an item that no index would hold: it is
            not known to the encoder, and not retrieved.
        known: the items whose row is not zero, for the encoder.
    """

    def __init__(self, users: UserEncoder, items: NDArray[np.float32], known: EncodedItems) -> None:
        self._users = users
        self._items = items
        self._known = known
        self._absent = np.flatnonzero(~items.any(axis=1))

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        """See :class:`encoder.evaluation.ranking.Ranker`; 0 for all where no direction is known."""
        users = self._users.encode(windows, self._known)  # (B, D)
        scores = users @ self._items.T  # (B, N)
        scores[:, self._absent] = NOT_RETRIEVABLE
        return scores


class LastItem:
    """Shows a ranker the newest event of each window alone."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        """See :class:`encoder.evaluation.ranking.Ranker`."""
        return self._ranker.scores(
            [window.with_rows(list(window.rows())[-1:]) for window in windows]
        )


class TermsRanker:
    """Scores by the cosine of title terms."""

    def __init__(self, users: SparseDecay, items: SparseRows) -> None:
        self._users = users
        self._items = SparseProduct(items)

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        """See :class:`encoder.evaluation.ranking.Ranker`."""
        return self._items.scores(self._users.encode(windows))


class WeightedSum:
    """Scores by the sum of rankers' scores, each times a constant."""

    def __init__(self, parts: Sequence[tuple[Ranker, float]]) -> None:
        self._parts = parts

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        """See :class:`encoder.evaluation.ranking.Ranker`."""
        (first, weight), *rest = self._parts
        total = first.scores(windows) * np.float32(weight)
        for ranker, weight in rest:
            total += ranker.scores(windows) * np.float32(weight)
        return total
