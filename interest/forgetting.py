"""What remains of a forgotten person: a marker that outranks everything older, without the id."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from interest.errors import InvalidEvent
from interest.event import MAX_ID_CHARS
from interest.unreadable import unreadable_reason
from interest.vector import Token

_HASH_BYTES = 16


class Marker(msgspec.Struct, frozen=True, array_like=True):
    """Says that a person was forgotten, and outranks what was known before.

    Events whose ``ts`` or whose arrival is ``time_ms`` (Unix ms) or earlier are dropped, writes
    whose token is ``token`` or lower are refused. ``place`` belongs to the vector store, which
    must find its copy again without the id.
    """

    subject_hash: bytes
    time_ms: int
    token: Token
    place: int = 0


def subject_hash(key: str, subject_id: str) -> bytes:
    """Give the keyed hash of a subject, 16 bytes (BLAKE2b).

    Who holds the key can test whether a given person was forgotten; nobody can list them.
    """
    return hashlib.blake2b(subject_id.encode(), digest_size=_HASH_BYTES, key=_secret(key)).digest()


@lru_cache(maxsize=1)
def _secret(key: str) -> bytes:
    # Asked for every event once there is a marker; the key of an installation stays.
    return hashlib.blake2b(key.encode(), digest_size=32, person=b"interest.forget").digest()


def joined(one: Marker, other: Marker | None) -> Marker:
    """Give the marker that does what both do: the later time and the higher token."""
    if other is None:
        return one
    return msgspec.structs.replace(
        one,
        time_ms=max(one.time_ms, other.time_ms),
        token=max(one.token, other.token),
        place=one.place or other.place,
    )


class ForgetRequest(msgspec.Struct, frozen=True):
    """A message of the ``forget`` topic, JSON, key = ``user_id``."""

    user_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]


_decoder = msgspec.json.Decoder(ForgetRequest)


def decode_forget_request(raw: bytes | None) -> ForgetRequest:
    """Decode and validate a request.

    Raises:
        InvalidEvent: with reason ``null_value``, ``not_utf8``, ``malformed_json`` or ``schema``.
    """
    if raw is None:
        raise InvalidEvent("null_value", "the record has no value")
    try:
        return _decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidEvent("schema", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent(unreadable_reason(raw), str(error)) from error
