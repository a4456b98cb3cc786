"""The user-vector record, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from interest.errors import BadInput, CorruptRecord
from interest.item import unit
from interest.sparse import SparseVector
from interest.vector import (
    HEADER_BYTES,
    TOKEN_OFFSET,
    Token,
    UserVector,
    check_rows,
    head_from_bytes,
    vector_from_bytes,
    vector_to_bytes,
)


def vector(n: int = 2, dim: int = 3, **fields: object) -> UserVector:
    rows = unit(np.arange(1, n * dim + 1).reshape(n, dim)) if n else np.zeros((0, dim), np.float32)
    values: dict[str, object] = {
        "user_id": "u", "model_id": "m", "token": Token(1, 2, 3), "event_time_ms": 10,
        "encode_time_ms": 20, "n_events": 4, "vectors": rows, "source_partition": 5,
        "source_offset": 6,
    }  # fmt: skip
    return UserVector(**{**values, **fields})  # type: ignore[arg-type]


def test_the_record_is_laid_out_as_documented() -> None:
    raw = vector_to_bytes(vector())
    assert raw[:4] == b"IUV1"
    assert struct.unpack_from("<BBHHHi", raw, 4) == (1, 0, 3, 2, 4, 5)
    assert struct.unpack_from("<IIQ", raw, TOKEN_OFFSET) == (1, 2, 3)
    assert struct.unpack_from("<qqq", raw, 32) == (10, 20, 6)
    assert raw[56:64] == bytes(8)
    rows = np.frombuffer(raw, "<f4", offset=HEADER_BYTES).reshape(2, 3)
    assert np.array_equal(rows, vector().vectors)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_record_gives_the_same_vector_back(n: int) -> None:
    before = vector(n, token=Token(2**32 - 1, 2**31, 2**63))
    after = vector_from_bytes(vector_to_bytes(before), "u", "m")
    assert np.array_equal(after.vectors, before.vectors)
    assert after.token == before.token
    assert (after.dim, after.is_cold) == (3, n == 0)
    assert (after.event_time_ms, after.encode_time_ms, after.n_events) == (10, 20, 4)
    assert head_from_bytes(vector_to_bytes(before)) == (before.token, 20)


def test_a_sparse_vector_stands_behind_the_rows() -> None:
    beside = SparseVector(np.array([3, 2**31], np.uint32), np.array([0.5, -2], np.float32))
    raw = vector_to_bytes(vector(sparse=beside))
    assert struct.unpack_from("<I", raw, 56) == (2,)
    assert raw[HEADER_BYTES + 2 * 3 * 4 :] == struct.pack("<IIff", 3, 2**31, 0.5, -2)
    after = vector_from_bytes(raw, "u", "m")
    assert np.array_equal(after.vectors, vector().vectors)
    assert [part.tolist() for part in after.sparse] == [part.tolist() for part in beside]
    with pytest.raises(CorruptRecord, match="sparse"):
        vector_from_bytes(raw[:-8], "u", "m")


def test_a_half_precision_record_is_widened() -> None:
    raw = bytearray(vector_to_bytes(vector(1)))
    half = raw[:HEADER_BYTES] + vector(1).vectors.astype("<f2").tobytes()
    half[4] = 2
    assert np.allclose(
        vector_from_bytes(bytes(half), "u", "m").vectors, vector(1).vectors, atol=1e-3
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_neither_stored_nor_read(value: float) -> None:
    bad = vector(vectors=np.array([[value, 0, 0]], np.float32))
    with pytest.raises(BadInput, match="NaN or infinity"):
        check_rows(np.concatenate([vector().vectors, bad.vectors]), "m")
    with pytest.raises(BadInput, match="NaN or infinity"):
        vector_from_bytes(vector_to_bytes(bad), "u", "m")


def test_a_vector_without_unit_length_is_neither_stored_nor_read() -> None:
    bad = vector(vectors=np.array([[3, 0, 0]], np.float32))
    with pytest.raises(BadInput, match="unit length"):
        check_rows(bad.vectors, "m")
    with pytest.raises(BadInput, match="unit length"):
        vector_from_bytes(vector_to_bytes(bad), "u", "m")


def test_no_vectors_at_all_are_fine() -> None:
    check_rows(np.zeros((0, 3), np.float32), "m")


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: b"XXXX" + raw[4:],
        lambda raw: raw[:4] + b"\x09" + raw[5:],
    ],
)
def test_damaged_records_are_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CorruptRecord):
        vector_from_bytes(damage(vector_to_bytes(vector())), "u", "m")
