"""Windows as bytes: the records of the changelog.

MessagePack array, format number first. The columns of the window go as they are; items go by their
ids, since a number means something to one worker only.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from interest.errors import CorruptRecord
from interest.item_table import SHARED, ItemTable
from interest.rare import split
from interest.window import ID, WORD, BehaviourWindow, count_entries

_FORMAT: Final = 3


class StoredWindow(NamedTuple):
    """A window, the generation that wrote it, and which events no good vector showed yet."""

    window: BehaviourWindow
    generation: int
    unproven: bytes


class _Stored(msgspec.Struct, array_like=True, gc=False):
    format: int
    subject_id: str
    era: int
    generation: int
    revision: int
    unresolved: bool
    #: The first two columns.
    heads: bytes
    items: list[str | None]
    rare: bytes
    unproven: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


def window_to_bytes(window: BehaviourWindow, generation: int, unproven: bytes = b"") -> bytes:
    """Give the changelog record of a window.

    Args:
        generation: consumer-group generation of the worker that writes.
        unproven: hashes of the ids of events that no good vector shows yet, 8 bytes each.
    """
    names = window.items.names
    return _encoder.encode(
        (
            _FORMAT,
            window.subject_id,
            window.era,
            generation,
            window.revision,
            window.unresolved,
            window.data[: (ID + WORD) * len(window)],
            [names[number] if number else None for number in window.item_numbers()],
            window.rare,
            unproven,
        )
    )


def window_from_bytes(raw: bytes, items: ItemTable = SHARED) -> StoredWindow:
    """Read a changelog record back.

    Args:
        items: the table whose numbers the window gets.

    Raises:
        CorruptRecord: other bytes, or a format this version does not know.
    """
    try:
        stored = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        found = _format_of(raw)
        if found not in (None, _FORMAT):
            error_ = f"window record of format {found}, expected {_FORMAT}"
            raise CorruptRecord(error_) from error
        raise CorruptRecord(f"window record of {len(raw)} bytes: {error}") from error
    if stored.format != _FORMAT:
        raise CorruptRecord(f"window record of format {stored.format}, expected {_FORMAT}")
    n = len(stored.items)
    fits = len(stored.heads) == (ID + WORD) * n and not len(stored.unproven) % ID
    if not fits or not _entries_fit(stored):
        raise CorruptRecord(f"window record of {len(raw)} bytes whose columns do not fit")
    window = BehaviourWindow(
        stored.subject_id,
        stored.heads + items.pack(stored.items),
        stored.rare,
        stored.revision,
        stored.era,
        stored.unresolved,
        items,
    )
    return StoredWindow(window, stored.generation, stored.unproven)


def _format_of(raw: bytes) -> int | None:
    """Read the format number of a record that this version cannot read."""
    try:
        head = msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return head[0] if isinstance(head, list) and head and isinstance(head[0], int) else None


def _entries_fit(stored: _Stored) -> bool:
    """Tell whether each event that says so has its entry among the rare fields."""
    n = len(stored.items)
    flags = stored.heads[ID * n :: WORD]
    n_wanted = count_entries(flags)
    try:
        return n_wanted == sum(1 for _ in split(stored.rare))
    except ValueError:
        return False
