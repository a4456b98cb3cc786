"""The user's side of title terms: the sparse vectors of a window's items, pooled by decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.spans import spread
from encoder.title_terms import SparseRows
from encoder.weighed import Weighed, Weights
from interest.bundle import DecayParameters
from interest.window import BehaviourWindow


class SparseDecay:
    """Pools the sparse vectors of a window's items as ``decay`` pools dense ones.

    What pushes away is left to the dense vector: a term of a returned shirt ("cotton") says little
    against others. What it took back counts no more here, too.
    """

    def __init__(
        self, items: SparseRows, row_of: Mapping[str, int], decay: DecayParameters
    ) -> None:
        self._items = items
        self._row_of = row_of
        self._decay = decay
        self._weights = Weights(decay)

    def encode(self, windows: Sequence[BehaviourWindow]) -> SparseRows:
        """Give a sparse vector of unit length for each window; empty where no term is known."""
        if not windows:
            return SparseRows(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        events = self._weights.of(windows)
        rows = self._rows(events)
        kept = np.flatnonzero((rows >= 0) & (events.weight > 0))
        rows, window = rows[kept], events.window[kept]
        scores = (
            np.log(events.weight[kept])
            + events.position[kept] * math.log(self._decay.position_decay)
            - events.age_ms[kept] * (math.log(2) / self._decay.half_life_ms)
        )
        # By each window's strongest event, as in `decay`: however old, none vanishes.
        peaks = np.full(len(windows), -np.inf)
        np.maximum.at(peaks, window, scores)
        weight = np.exp(scores - peaks[window])
        lengths = np.diff(self._items.starts)[rows]
        event, place = spread(self._items.starts[rows], lengths)
        n_terms = int(self._items.terms.max(initial=-1)) + 1
        cells, back = np.unique(
            window[event] * n_terms + self._items.terms[place], return_inverse=True
        )
        sums = np.bincount(back, self._items.weights[place] * weight[event])
        owner, numbers = np.divmod(cells, max(1, n_terms))
        lengths_of = np.sqrt(np.bincount(owner, sums * sums, len(windows)))
        return SparseRows(
            np.searchsorted(owner, np.arange(len(windows) + 1)),
            numbers,
            (sums / lengths_of[owner]).astype(np.float32),
        )

    def _rows(self, events: Weighed) -> NDArray[np.int64]:
        numbers, places = np.unique(events.item, return_inverse=True)
        names = events.names
        rows = [self._row_of.get(names[n], -1) if n else -1 for n in numbers.tolist()]
        return np.array(rows, np.int64)[places]
