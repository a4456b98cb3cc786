"""The recent behaviours that readers see beside a vector: MessagePack, see ``docs/contracts.md``.

They are written with every vector, 50 of them, and read by few; so they are made straight from the
window, without an object per behaviour in between.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from interest.columns import rare_of
from interest.errors import CorruptRecord
from interest.event import TYPES, EventType
from interest.window import HAS_TEXT, WORD, BehaviourWindow

_TEXT_CHARS: Final = 128
_TYPES: Final = tuple(type_.value for type_ in TYPES)


class RecentBehaviour(msgspec.Struct, frozen=True, array_like=True):
    """One behaviour of a window as readers see it beside the vector, newest first."""

    type: EventType
    ts: int
    item_id: str | None = None
    text: str | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[RecentBehaviour, ...])


def recent_of(window: BehaviourWindow) -> bytes:
    """Give what readers see of a window, newest first."""
    n, names = len(window), window.items.names
    words, numbers = window.words_and_items()
    rows: list[tuple[str, int, str | None, str | None]] = [
        (_TYPES[word >> 8 & 0xFF], word >> 16, names[number] if number else None, None)
        for word, number in zip(
            struct.unpack(f"<{n}Q", words), struct.unpack(f"<{n}I", numbers), strict=True
        )
    ]
    if window.rare and any(flags & HAS_TEXT for flags in words[::WORD]):
        for i, rare in rare_of(window):
            if rare.text:
                rows[i] = (*rows[i][:3], rare.text[:_TEXT_CHARS])
    rows.reverse()
    return _encoder.encode(rows)


def recent_to_bytes(behaviours: Iterable[RecentBehaviour]) -> bytes:
    """Give the MessagePack array of behaviours."""
    return _encoder.encode(tuple(behaviours))


def recent_from_bytes(raw: bytes) -> tuple[RecentBehaviour, ...]:
    """Read them back.

    Raises:
        CorruptRecord: somebody else wrote them.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"recent behaviours of {len(raw)} bytes: {error}") from error
