"""The recent behaviours that readers see beside a vector: MessagePack, see ``docs/contracts.md``.

They are written with every vector, 50 of them, and read by few; so they are columns, as a window
has them, and nothing is made for each behaviour but the id of its item.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from interest.columns import rare_of
from interest.errors import CorruptRecord
from interest.event import TYPE_CODES, TYPES, EventType
from interest.item_table import unpack_numbers
from interest.window import HAS_TEXT, WORD, BehaviourWindow

_TEXT_CHARS: Final = 128


class RecentBehaviour(msgspec.Struct, frozen=True):
    """One behaviour of a window as readers see it beside the vector."""

    type: EventType
    ts: int
    item_id: str | None = None
    text: str | None = None


class _Columns(NamedTuple):
    """What is stored, oldest first: words of a window, items, and texts by position."""

    words: bytes
    items: list[str | None]
    texts: dict[int, str]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Columns)


def recent_of(window: BehaviourWindow) -> bytes:
    """Give what readers see of a window."""
    names = window.items.names
    words, numbers = window.words_and_items()
    items = [names[number] if number else None for number in unpack_numbers(numbers)]
    texts = {}
    if window.rare and any(flags & HAS_TEXT for flags in words[::WORD]):
        texts = {i: rare.text[:_TEXT_CHARS] for i, rare in rare_of(window) if rare.text}
    return _encoder.encode((words, items, texts))


def recent_to_bytes(behaviours: Iterable[RecentBehaviour]) -> bytes:
    """Give the record of behaviours, which come newest first."""
    oldest_first = list(behaviours)[::-1]
    words = [each.ts << 16 | TYPE_CODES[each.type] << 8 for each in oldest_first]
    return _encoder.encode(
        _Columns(
            struct.pack(f"<{len(words)}Q", *words),
            [each.item_id for each in oldest_first],
            {i: each.text for i, each in enumerate(oldest_first) if each.text},
        )
    )


def recent_from_bytes(raw: bytes) -> tuple[RecentBehaviour, ...]:
    """Read behaviours back, newest first.

    Raises:
        CorruptRecord: somebody else wrote them.
    """
    try:
        columns = _decoder.decode(raw)
        words = struct.unpack(f"<{len(columns.items)}Q", columns.words)
        found = [
            RecentBehaviour(TYPES[word >> 8 & 0xFF], word >> 16, item_id, columns.texts.get(i))
            for i, (word, item_id) in enumerate(zip(words, columns.items, strict=True))
        ]
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error, IndexError) as error:
        raise CorruptRecord(f"recent behaviours of {len(raw)} bytes: {error}") from error
    return tuple(reversed(found))
