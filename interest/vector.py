"""User vectors and their record in Redis, documented to the byte in ``docs/contracts.md``.

Little-endian, 64 bytes of header, then ``n_interests × dim`` numbers, row by row, then the sparse
vector of models that have one.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from interest.errors import BadInput, CorruptRecord
from interest.sparse import EMPTY, ENTRY_BYTES, SparseVector, sparse_from_bytes, sparse_to_bytes

MAGIC: Final = b"IUV1"
HEADER_BYTES: Final = 64
#: Byte offset of the flags. None is set in a record in the clear.
FLAGS_OFFSET: Final = 5
#: The flag of a record whose numbers are encrypted behind the header.
SEALED_FLAG: Final = 1
#: Byte offset of (era u32, generation u32, revision u64): the script in Redis compares it.
TOKEN_OFFSET: Final = 16
_HEADER: Final = struct.Struct("<4sBBHHHiIIQqqqI4x")
_DTYPES: Final[dict[int, np.dtype[Any]]] = {1: np.dtype("<f4"), 2: np.dtype("<f2")}
_MAX_U16: Final = 0xFFFF
_UNIT_TOLERANCE: Final = 1e-2


class Token(NamedTuple):
    """Orders the writes of one user's vector; compared field by field. Not an offset.

    ``generation`` is the consumer-group generation at assignment, ``revision`` the window's
    counter, ``era`` survives a broker that was wiped or a group that was reset.
    """

    era: int
    generation: int
    revision: int


class UserVector(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What Redis holds of one user for one model.

    ``vectors`` is float32 of shape (n_interests, dim), rows of unit length; with several rows
    the maximum dot product counts. No rows: the window gave no usable direction, and readers
    treat the user as cold. ``sparse`` is what stands beside them, see :mod:`interest.sparse`.
    ``source_partition`` and ``source_offset`` are for diagnosis only;
    -1 where unknown.

    Whoever reads or stores one checks its numbers, see :func:`check_rows`: here each check would
    cost more than everything else that is done with a vector.
    """

    user_id: str
    model_id: str
    token: Token
    event_time_ms: int
    encode_time_ms: int
    n_events: int
    vectors: NDArray[np.float32]
    sparse: SparseVector = EMPTY
    source_partition: int = -1
    source_offset: int = -1

    @property
    def dim(self) -> int:
        """Length of one vector; kept also where there is no vector."""
        return int(self.vectors.shape[1])

    @property
    def is_cold(self) -> bool:
        """True where no direction is known and readers fall back to popular items."""
        return not len(self.vectors)


def check_rows(rows: NDArray[np.float32], model_id: str) -> None:
    """Return if every row, (N, D), has unit length.

    Raises:
        BadInput: another shape or length, or NaN or infinity in it.
    """
    if rows.ndim != 2:
        raise BadInput(f"user vectors of shape {rows.shape}, expected (n, dim)")
    squares = np.einsum("nd,nd->n", rows, rows)
    # NaN compares false; twice the tolerance, as these are squares.
    if not np.all(np.abs(squares - 1) <= 2 * _UNIT_TOLERANCE):
        if not np.isfinite(squares).all():
            raise BadInput(f"a vector of model {model_id} holds NaN or infinity")
        raise BadInput(f"a vector of model {model_id} is not of unit length")


def vector_to_bytes(vector: UserVector) -> bytes:
    """Give the Redis record of a user vector (float32)."""
    header = _HEADER.pack(
        MAGIC,
        1,
        0,
        vector.dim,
        vector.vectors.shape[0],
        min(vector.n_events, _MAX_U16),
        vector.source_partition,
        vector.token.era,
        vector.token.generation,
        vector.token.revision,
        vector.event_time_ms,
        vector.encode_time_ms,
        vector.source_offset,
        vector.sparse.n,
    )
    rows = np.ascontiguousarray(vector.vectors, dtype="<f4").tobytes()
    return header + rows + sparse_to_bytes(vector.sparse)


def vector_from_bytes(raw: bytes, user_id: str, model_id: str) -> UserVector:
    """Read a Redis record; half-precision records are widened to float32.

    Raises:
        CorruptRecord: wrong magic, dtype or length, or still encrypted.
        BadInput: its numbers are no unit vectors.
    """
    if len(raw) < HEADER_BYTES or raw[:4] != MAGIC:
        raise CorruptRecord(f"user vector record of {len(raw)} bytes without the magic {MAGIC!r}")
    (_, dtype_code, flags, dim, n, n_events, partition, era, generation, revision, event_ms,
     encode_ms, offset, n_sparse) = _HEADER.unpack_from(raw)  # fmt: skip
    if flags:
        raise CorruptRecord(f"user vector record with flags {flags:#x} is not in the clear")
    dtype = _DTYPES.get(dtype_code)
    if dtype is None:
        raise CorruptRecord(f"user vector record of unknown dtype {dtype_code}")
    end = HEADER_BYTES + n * dim * dtype.itemsize
    if len(raw) != end + n_sparse * ENTRY_BYTES:
        raise CorruptRecord(
            f"user vector record of {len(raw)} bytes for {n} × {dim} {dtype} and {n_sparse} sparse"
        )
    rows = np.frombuffer(raw, dtype, n * dim, HEADER_BYTES).reshape(n, dim).astype(np.float32)
    check_rows(rows, model_id)
    return UserVector(
        user_id=user_id,
        model_id=model_id,
        token=Token(era, generation, revision),
        event_time_ms=event_ms,
        encode_time_ms=encode_ms,
        n_events=n_events,
        vectors=rows,
        sparse=sparse_from_bytes(raw[end:]),
        source_partition=partition,
        source_offset=offset,
    )


class VectorHead(NamedTuple):
    """What a worker compares of a stored record: its token, and when it was encoded (Unix ms)."""

    token: Token
    encode_time_ms: int


def head_from_bytes(raw: bytes) -> VectorHead:
    """Read token and encode time of a record alone.

    Raises:
        CorruptRecord: the record is shorter than a header.
    """
    if len(raw) < HEADER_BYTES:
        raise CorruptRecord(f"user vector record of {len(raw)} bytes is shorter than its header")
    era, generation, revision, _, encode_ms = struct.unpack_from("<IIQqq", raw, TOKEN_OFFSET)
    return VectorHead(Token(era, generation, revision), encode_ms)
