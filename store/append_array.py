"""An array that one thread appends to while others read what was there before."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

_FIRST: Final = 4


class AppendArray:
    """Rows that never change; what :meth:`first` gave stays as it is, whatever is appended.

    Args:
        row_shape: of one row; nothing for numbers.
    """

    def __init__(self, dtype: DTypeLike, *row_shape: int) -> None:
        self._held: NDArray[Any] = np.empty((_FIRST, *row_shape), dtype)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows at the end; by one thread at a time."""
        end = self._n + len(rows)
        if end > len(self._held):
            # By half, not double: pages beyond the last row are not resident, but a copy is.
            larger = np.empty((max(end, len(self._held) * 3 // 2), *self._held.shape[1:]),
                              self._held.dtype)  # fmt: skip
            larger[: self._n] = self._held[: self._n]
            self._held = larger
        self._held[self._n : end] = rows
        self._n = end  # last, so that a reader finds the rows that it counts

    def first(self, n: int) -> NDArray[Any]:
        """Give the first ``n`` rows, without a copy."""
        return self._held[:n]

    @property
    def n_bytes(self) -> int:
        """Bytes of the rows."""
        return self._held[: self._n].nbytes
