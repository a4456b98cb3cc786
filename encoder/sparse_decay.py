"""The user's side of title terms: the sparse vectors of a window's items, pooled by decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoder.spans import spread
from encoder.title_terms import SparseRows
from encoder.weighed import Weighed, Weights
from interest.bundle import DecayParameters
from interest.window import BehaviourWindow

NO_ROWS: Final = SparseRows(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def pooled(
    matrix: SparseRows,
    rows: NDArray[np.int64],
    events: Weighed,
    n_windows: int,
    decay: DecayParameters,
) -> SparseRows:
    """Give the sum of each window's rows, weighed by ``decay``: unit length, or empty.

    Shapes: M events.

    Args:
        rows: (M,) the row of ``matrix`` that an event stands for; -1 for none.
    """
    kept = np.flatnonzero((rows >= 0) & (events.weight > 0))
    rows, window = rows[kept], events.window[kept]
    scores = (
        np.log(events.weight[kept])
        + events.position[kept] * math.log(decay.position_decay)
        - events.age_ms[kept] * (math.log(2) / decay.half_life_ms)
    )
    # By each window's strongest event, as in `decay`: however old, none vanishes.
    peaks = np.full(n_windows, -np.inf)
    np.maximum.at(peaks, window, scores)
    weight = np.exp(scores - peaks[window])
    lengths = np.diff(matrix.starts)[rows]
    event, place = spread(matrix.starts[rows], lengths)
    n_terms = int(matrix.terms.max(initial=-1)) + 1
    cells, back = np.unique(window[event] * n_terms + matrix.terms[place], return_inverse=True)
    sums = np.bincount(back, matrix.weights[place] * weight[event])
    owner, numbers = np.divmod(cells, max(1, n_terms))
    lengths_of = np.sqrt(np.bincount(owner, sums * sums, n_windows))
    return SparseRows(
        np.searchsorted(owner, np.arange(n_windows + 1)),
        numbers,
        (sums / lengths_of[owner]).astype(np.float32),
    )


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
            return NO_ROWS
        events = self._weights.of(windows)
        return pooled(self._items, self._rows(events), events, len(windows), self._decay)

    def _rows(self, events: Weighed) -> NDArray[np.int64]:
        numbers, places = np.unique(events.item, return_inverse=True)
        names = events.names
        rows = [self._row_of.get(names[n], -1) if n else -1 for n in numbers.tolist()]
        return np.array(rows, np.int64)[places]
