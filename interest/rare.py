"""What an event may carry beside its item, type and time, as windows keep it.

A window has these fields as a row of entries, one for each run of events that carry the same:
mostly a session, a platform and a domain. An entry has its length on both sides, so that the
oldest can be dropped and the newest compared without reading the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from interest.event import Event

_LENGTH_BYTES: Final = 4
#: Sessions remembered, so that an event of a session at hand costs a look and no encoding.
_SESSIONS: Final = 65_536


class Rare(
    msgspec.Struct, frozen=True, omit_defaults=True, gc=False,
    rename={
        "session_id": "s", "platform": "p", "domain": "d", "text": "t", "rating": "r",
        "dwell_ms": "w", "request_id": "q", "user_id": "u", "position": "n", "model_id": "m",
        "propensity": "y", "schema": "v",
    },
):  # fmt: skip
    """The fields of :class:`interest.event.Event` that most events lack.

    ``user_id`` is the account, where it is another than the window's subject.
    """

    session_id: str | None = None
    platform: str | None = None
    domain: str | None = None
    text: str | None = None
    rating: float | None = None
    dwell_ms: int | None = None
    request_id: str | None = None
    user_id: str | None = None
    position: int | None = None
    model_id: str | None = None
    propensity: float | None = None
    schema: int = 1


NOTHING: Final = Rare()

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Rare)
_sessions: dict[tuple[str | None, str | None, str | None], bytes] = {}


def entry_of(event: Event, subject_id: str, text_chars: int) -> bytes:
    """Give the entry of an event; empty where it carries nothing of this."""
    account = None if event.user_id == subject_id else event.user_id
    text = None if event.text is None else event.text[:text_chars]
    return entry(
        Rare(
            event.session_id, event.platform, event.domain, text, event.rating, event.dwell_ms,
            event.request_id, account, event.position, event.model_id, event.propensity,
            event.schema,
        )
    )  # fmt: skip


def entry_of_session(session_id: str | None, platform: str | None, domain: str | None) -> bytes:
    """Give the entry of an event that carries nothing else."""
    session = session_id, platform, domain
    known = _sessions.get(session)
    if known is None:
        if len(_sessions) >= _SESSIONS:
            _sessions.clear()
        known = _sessions[session] = entry(Rare(*session))
    return known


def entry(rare: Rare) -> bytes:
    """Give the entry of these fields; empty where there are none."""
    if rare == NOTHING:
        return b""
    raw = _encoder.encode(rare)
    length = len(raw).to_bytes(_LENGTH_BYTES, "little")
    return length + raw + length


def first_length(entries: bytes) -> int:
    """Give how many bytes the first entry takes."""
    return int.from_bytes(entries[:_LENGTH_BYTES], "little") + 2 * _LENGTH_BYTES


def split(entries: bytes) -> Iterator[bytes]:
    """Give the entries one by one, of which :func:`count` has seen that they are some."""
    first = 0
    while first < len(entries):
        last = first + first_length(entries[first : first + _LENGTH_BYTES])
        yield entries[first:last]
        first = last


def count(entries: bytes) -> int:
    """Count the entries; a recovery does this for every window.

    Raises:
        ValueError: the bytes are no entries.
    """
    n = first = 0
    while first < len(entries):
        length = entries[first : first + _LENGTH_BYTES]
        last = first + int.from_bytes(length, "little") + 2 * _LENGTH_BYTES
        if last > len(entries) or entries[last - _LENGTH_BYTES : last] != length:
            raise ValueError("entries of rare fields that do not end where they should")
        first = last
        n += 1
    return n


def fields(entry_: bytes) -> Rare:
    """Read an entry.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _decoder.decode(entry_[_LENGTH_BYTES:-_LENGTH_BYTES]) if entry_ else NOTHING
