"""Sparse vectors, and what their dimensions mean.

Items and users hold two things in one sparse vector: title terms, dimension = number of the term,
and links between items, dimension = ``LINKS_FROM`` + number of the item that is linked *from*. An
item's vector lists the items that lead to it, a user's the items of the window; so one dot product
is the sum of both, and an index stores a few dozen numbers for a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interest.errors import BadInput, CorruptRecord

#: Dimensions from here on are links between items, those below are terms.
LINKS_FROM: Final = 2**31
#: Of one number: its dimension (u32) and its value (f32).
ENTRY_BYTES: Final = 8


class SparseVector(NamedTuple):
    """The numbers that are not zero: ``dims`` (n,) ascending, each once, and ``values`` (n,)."""

    dims: NDArray[np.uint32]
    values: NDArray[np.float32]

    @property
    def n(self) -> int:
        """How many numbers there are."""
        return len(self.dims)

    def weighed(self, terms: float, links: float) -> SparseVector:
        """Give the vector with its terms and its links multiplied; what becomes 0 is left out."""
        values = self.values * np.where(self.dims < LINKS_FROM, terms, links).astype(np.float32)
        kept = values != 0
        return SparseVector(self.dims[kept], values[kept])


#: The vector without a number: of an item or user that a bundle says nothing sparse of.
EMPTY: Final = SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))


def dots(query: SparseVector, vectors: Sequence[SparseVector]) -> NDArray[np.float64]:
    """Give the dot product with each vector, (len(vectors),).

    Products are summed by dimension, ascending, so equal vectors get equal results.
    """
    n = len(vectors)
    dims = np.concatenate([EMPTY.dims, *(vector.dims for vector in vectors)])
    if not query.n or not len(dims):
        return np.zeros(n)
    values = np.concatenate([vector.values for vector in vectors])
    owner = np.repeat(np.arange(n), [vector.n for vector in vectors])
    place = np.minimum(np.searchsorted(query.dims, dims), query.n - 1)
    same = query.dims[place] == dims
    products = values[same] * query.values[place[same]].astype(np.float64)
    return np.bincount(owner[same], products, n).astype(np.float64, copy=False)


def check_sparse(vector: SparseVector, what: str) -> None:
    """Return if dimensions ascend and values are finite.

    Raises:
        BadInput: they do not; ``what`` names the vector.
    """
    dims, values = vector
    if dims.shape != values.shape or dims.ndim != 1 or (np.diff(dims.astype(np.int64)) <= 0).any():
        raise BadInput(f"{what}: the dimensions of its sparse vector do not ascend")
    if not np.isfinite(values).all():
        raise BadInput(f"{what}: its sparse vector holds NaN or infinity")


def sparse_to_bytes(vector: SparseVector) -> bytes:
    """Give all dimensions (u32), then all values (f32), little-endian."""
    return (
        np.ascontiguousarray(vector.dims, "<u4").tobytes()
        + np.ascontiguousarray(vector.values, "<f4").tobytes()
    )


def sparse_from_bytes(raw: bytes) -> SparseVector:
    """Read what :func:`sparse_to_bytes` gave.

    Raises:
        CorruptRecord: another length, dimensions that do not ascend, NaN or infinity.
    """
    if not raw:
        return EMPTY
    if len(raw) % ENTRY_BYTES:
        raise CorruptRecord(f"sparse vector of {len(raw)} bytes")
    n = len(raw) // ENTRY_BYTES
    vector = SparseVector(
        np.frombuffer(raw, "<u4", n).astype(np.uint32),
        np.frombuffer(raw, "<f4", n, 4 * n).astype(np.float32),
    )
    try:
        check_sparse(vector, "a record")
    except BadInput as error:
        raise CorruptRecord(str(error)) from error
    return vector
