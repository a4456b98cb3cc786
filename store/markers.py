"""Markers of forgotten users as Redis holds them: 24 bytes under a key without the id."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from interest.forgetting import Marker, subject_hash
from interest.vector import Token
from store.slots import check_prefix, slot_of, tags

_MARKER: Final = struct.Struct("<IIQq")
MARKER_BYTES: Final = _MARKER.size


class MarkerKeys:
    """Names the marker of a user: beside the user's hash in a cluster, and without the id.

    Args:
        prefix: of every key of the store.
        forget_key: the secret of the keyed hash.

    Raises:
        BadInput: the prefix has a brace without its partner.
    """

    def __init__(self, prefix: str, forget_key: str) -> None:
        check_prefix(prefix)
        self._prefix = prefix
        self._forget_key = forget_key
        # With a tag in the prefix all keys share its slot, whatever comes behind.
        self._one_slot = "{" in prefix

    def place(self, user_key: str) -> int:
        """Number the slot of a user's hash, from 1; a marker keeps it, to be found again."""
        return 1 if self._one_slot else slot_of(user_key.encode()) + 1

    def hash(self, user_id: str) -> bytes:
        """Give what a marker holds instead of the id."""
        return subject_hash(self._forget_key, user_id)

    def key(self, hashed: bytes, place: int) -> str:
        """Name the key of a marker."""
        return f"{self._prefix}forgotten:{{{tags()[place - 1]}}}:{hashed.hex()}"


def marker_to_bytes(marker: Marker) -> bytes:
    """Give the record of a marker: its token, then its time."""
    return _MARKER.pack(*marker.token, marker.time_ms)


def marker_from_bytes(raw: bytes, hashed: bytes, place: int) -> Marker:
    """Read a record of the length ``MARKER_BYTES``, as the scripts answer it."""
    era, generation, revision, time_ms = _MARKER.unpack(raw)
    return Marker(hashed, time_ms, Token(era, generation, revision), place)


def placed(marker: Marker, place: int) -> Marker:
    """Give the marker with its place."""
    return msgspec.structs.replace(marker, place=place)
