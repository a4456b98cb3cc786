"""User vectors as any other program would read them: by ``docs/contracts.md`` alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_HEADER: Final = struct.Struct("<4sBBHHHiIIQqqq8x")


class StoredVector(NamedTuple):
    """One model field. ``token`` is (era, generation, revision)."""

    token: tuple[int, int, int]
    n_events: int
    event_time_ms: int
    vectors: NDArray[np.float32]  # (n_interests, dim)


def user_vector(raw: bytes) -> StoredVector:
    """Read a model field."""
    (magic, dtype, _, dim, n, n_events, _, era, generation, revision, event_ms, _, _) = (
        _HEADER.unpack_from(raw)
    )
    assert magic == b"IUV1", f"magic {magic!r}"
    rows = np.frombuffer(raw, {1: "<f4", 2: "<f2"}[dtype], offset=64).reshape(n, dim)
    return StoredVector((era, generation, revision), n_events, event_ms, rows.astype(np.float32))


def model_field(fields: Mapping[bytes, bytes]) -> bytes | None:
    """Give the field that holds a vector: 16 hex digits; None where there is none."""
    for name, raw in fields.items():
        if len(name) == 16 and raw[:3] == b"IUV":
            return raw
    return None
