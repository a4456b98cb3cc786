"""Sparse vectors in memory, found by row and searched by dimension.

Rows are appended and never change. Most are in an index by dimension, which a search reads for the
dimensions of its query alone; the newest are looked through row by row, until the index is made
again with them. One thread appends, any search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interest.sparse import EMPTY, SparseVector
from store.append_array import AppendArray

#: The index is made again when so many numbers are not in it: few enough to look through in about
#: a millisecond, and at first a quarter of what is in it.
_FEW: Final = 8_192
_MANY: Final = 131_072


class _Index(NamedTuple):
    """The numbers of the first ``n_rows`` rows, by dimension and then by row.

    Those of ``dims[i]`` are ``starts[i]:starts[i + 1]``.
    """

    n_rows: int
    dims: NDArray[np.uint32]  # (d,) ascending
    starts: NDArray[np.int64]  # (d + 1,)
    rows: NDArray[np.int32]  # (nnz,)
    values: NDArray[np.float32]  # (nnz,)


_NOTHING: Final = _Index(
    0,
    np.zeros(0, np.uint32),
    np.zeros(1, np.int64),
    np.zeros(0, np.int32),
    np.zeros(0, np.float32),
)


class SparseRows:
    """The sparse vectors of rows; empty ones cost eight bytes."""

    def __init__(self) -> None:
        self._dims = AppendArray(np.uint32)
        self._values = AppendArray(np.float32)
        self._ends = AppendArray(np.int64)  # of each row, among all numbers
        self._index = _NOTHING

    def append(self, vectors: Sequence[SparseVector]) -> None:
        """Add rows at the end; by one thread at a time."""
        lengths = np.array([vector.n for vector in vectors], np.int64)
        ends = len(self._dims) + np.cumsum(lengths)
        if lengths.any():
            self._dims.append(np.concatenate([vector.dims for vector in vectors]))
            self._values.append(np.concatenate([vector.values for vector in vectors]))
        self._ends.append(ends)  # last, so that a reader finds the numbers of the rows it sees
        indexed = len(self._index.rows)
        if len(self._dims) - indexed > min(_MANY, max(_FEW, indexed // 4)):
            self._index = self._indexed()

    def _indexed(self) -> _Index:
        n_rows, n = len(self._ends), len(self._dims)
        dims = self._dims.first(n)
        order = np.argsort(dims, kind="stable")  # rows of a dimension stay ascending
        held, starts = np.unique(dims[order], return_index=True)
        rows = np.repeat(
            np.arange(n_rows, dtype=np.int32), np.diff(self._ends.first(n_rows), prepend=0)
        )
        return _Index(n_rows, held, np.append(starts, n), rows[order], self._values.first(n)[order])

    def get(self, row: int) -> SparseVector:
        """Give a copy of one row."""
        ends = self._ends.first(row + 1)
        end = int(ends[row])
        start = int(ends[row - 1]) if row else 0
        if start == end:
            return EMPTY
        return SparseVector(
            self._dims.first(end)[start:].copy(), self._values.first(end)[start:].copy()
        )

    def only(self, kept: NDArray[np.intp]) -> SparseRows:
        """Copy some rows."""
        some = SparseRows()
        ends = self._ends.first(len(self._ends))
        lengths = np.diff(ends, prepend=0)[kept]
        _, places = _spread(ends[kept] - lengths, lengths)
        some._dims.append(self._dims.first(len(self._dims))[places])
        some._values.append(self._values.first(len(self._values))[places])
        some._ends.append(np.cumsum(lengths))
        some._index = some._indexed()
        return some

    def scores(self, query: SparseVector, n: int) -> NDArray[np.float64]:
        """Give the dot product with each of the first ``n`` rows, (n,).

        Products are summed by dimension, ascending, so equal rows get equal scores.
        """
        index = self._index  # once: the thread that appends replaces it
        asked = query.values.astype(np.float64)
        place = np.searchsorted(index.dims, query.dims)
        found = np.flatnonzero(np.isin(query.dims, index.dims, assume_unique=True))
        starts = index.starts[place[found]]
        which, places = _spread(starts, index.starts[place[found] + 1] - starts)
        products = index.values[places] * asked[found][which]
        # Of nothing at all bincount gives whole numbers.
        sums = np.bincount(index.rows[places], products, n)[:n].astype(np.float64, copy=False)
        if index.n_rows < n:
            sums[index.n_rows :] = self._scanned(query, index.n_rows, n)
        return sums

    def _scanned(self, query: SparseVector, first: int, n: int) -> NDArray[np.float64]:
        """Score the rows ``first`` to ``n`` one after the other."""
        ends = self._ends.first(n)
        start = int(ends[first - 1]) if first else 0
        dims, values = self._dims.first(ends[-1])[start:], self._values.first(ends[-1])[start:]
        row = np.repeat(np.arange(n - first), np.diff(ends[first:], prepend=start))
        place = np.minimum(np.searchsorted(query.dims, dims), query.n - 1)
        same = query.dims[place] == dims
        products = values[same] * query.values[place[same]].astype(np.float64)
        return np.bincount(row[same], products, n - first).astype(np.float64, copy=False)


def _spread(
    starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give for each place of some stretches the number of its stretch, and the place."""
    which = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return which, np.arange(len(which)) - before[which] + starts[which]
