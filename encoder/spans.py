"""Spans of an array, laid out one after the other. numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def spread(starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Give, for each element of each span, which span it is of and where it lies.

    ``spread([7, 2], [2, 1])`` gives ``[0, 0, 1]`` and ``[7, 8, 2]``.

    Shapes: S spans; both results have as many elements as the spans in all.
    """
    owner = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths  # (S,) elements of earlier spans
    return owner, (starts - before)[owner] + np.arange(len(owner))
