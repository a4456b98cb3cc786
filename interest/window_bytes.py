"""Windows as bytes: the records of the changelog.

MessagePack array, format number first. The columns of the window go as they are; items go by their
ids, since a number means something to one worker only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from interest.errors import CorruptRecord
from interest.item_table import SHARED, ItemTable
from interest.rare import count
from interest.window import ID, WORD, BehaviourWindow, count_entries

_FORMAT: Final = 3


class StoredWindow(NamedTuple):
    """A window, the generation that wrote it, and which events no good vector showed yet.

    ``unproven`` are the ids of those, or where the id is not known any more its hash.
    """

    window: BehaviourWindow
    generation: int
    unproven: tuple[str | bytes, ...]


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
    #: Ids of unproven events, and the hashes of others.
    unproven: list[str]
    unnamed: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


def window_to_bytes(
    window: BehaviourWindow, generation: int, unproven: Sequence[str | bytes] = ()
) -> bytes:
    """Give the changelog record of a window.

    Args:
        generation: consumer-group generation of the worker that writes.
        unproven: see :class:`StoredWindow`.
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
            [event_id for event_id in unproven if isinstance(event_id, str)],
            b"".join([hashed for hashed in unproven if isinstance(hashed, bytes)]),
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
    if len(stored.heads) != (ID + WORD) * n or not _entries_fit(stored):
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
    unnamed = [stored.unnamed[i : i + ID] for i in range(0, len(stored.unnamed), ID)]
    return StoredWindow(window, stored.generation, (*stored.unproven, *unnamed))


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
        return n_wanted == count(stored.rare)
    except ValueError:
        return False
