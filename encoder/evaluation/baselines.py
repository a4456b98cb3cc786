"""Rankers that know events and no text; each is fitted on training events alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from encoder.evaluation.protocols import Split
from encoder.links import co_occurrence, ease_weights, first_of_each
from encoder.spans import spread
from interest.columns import columns
from interest.window import BehaviourWindow

#: How much less each older event says; as good for EASE on Beauty as any, for all alike.
POSITION_DECAY: Final = 0.8


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
        found = co_occurrence(*_distinct(dataset, split), n)
        self._neighbours, self._weights = found.neighbour, found.weight  # (P,)
        self._starts = np.searchsorted(found.item, np.arange(n + 1))  # (N + 1,)
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
        self._weights = ease_weights(*_distinct(dataset, split), dataset.n_items)

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
    items = dataset.items[split.train].astype(np.int64)
    return first_of_each(dataset.users()[split.train], items, dataset.n_items)


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
