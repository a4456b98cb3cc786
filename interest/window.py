"""The behaviour window of a user, packed, and what can be asked of it.

The events lie in three columns of one ``bytes``, oldest first: 8-byte hashes of the event ids;
words of event time, type and flags; numbers of the items in a table that all windows of a worker
share. What most events lack stands apart (:mod:`interest.rare`). So a full window of 50 events
takes a kilobyte, and is copied, stored and read as one block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from interest.event import TYPES, Event, EventType
from interest.item_table import SHARED, ItemTable, unpack_numbers
from interest.rare import Rare, fields, first_length, split

_DAY_MS: Final = 86_400_000
#: Bytes of an event in each column, and in all.
ID: Final = 8
WORD: Final = 8
ITEM: Final = 4
EVENT: Final = ID + WORD + ITEM

# The flags of a word: it is event time << 16 | code of the type << 8 | flags.
#: The event has an entry among the rare fields …
HAS_RARE: Final = 1
#: … which is that of the event before it; of no meaning in the oldest event.
SAME_RARE: Final = 2
HAS_TEXT: Final = 4
HAS_RATING: Final = 8
HAS_DWELL: Final = 16
_RARE_AND_SAME: Final = HAS_RARE | SAME_RARE
#: For each byte of flags, 1 where the event has an entry of its own.
_OWNS: Final = bytes((flags & _RARE_AND_SAME) == HAS_RARE for flags in range(256))


class WindowLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What bounds a window; part of the model bundle, since a model is trained on it.

    ``text_chars`` cuts review and query texts on their way into the window, so that 50 novels
    still fit a Kafka record; models read far less of them.
    """

    max_events: int = 50
    span_ms: int = 30 * _DAY_MS
    text_chars: int = 1024

    def __post_init__(self) -> None:
        if not 1 <= self.max_events <= 1000 or self.span_ms < 1 or self.text_chars < 0:
            raise ValueError(
                "window limits: 1 <= max_events <= 1000, span_ms >= 1, text_chars >= 0"
            )


class Row(NamedTuple):
    """One event of a window, taken apart; rows sort as windows do, by time and hash of the id."""

    ts: int
    id_hash: bytes
    #: The code of its type, see :data:`interest.event.TYPES`.
    code: int
    #: Without ``SAME_RARE``.
    flags: int
    #: Its item's number.
    item: int
    #: Its entry among the rare fields; empty for none.
    rare: bytes


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event as a window keeps it: of its id only the hash, of its text the beginning.

    ``user_id`` is the account, where it is another than the window's subject.
    """

    id_hash: bytes
    ts: int
    type: EventType
    item_id: str | None = None
    text: str | None = None
    rating: float | None = None
    dwell_ms: int | None = None
    session_id: str | None = None
    platform: str | None = None
    domain: str | None = None
    request_id: str | None = None
    position: int | None = None
    model_id: str | None = None
    propensity: float | None = None
    user_id: str | None = None
    schema: int = 1


class BehaviourWindow(msgspec.Struct, frozen=True, gc=False):
    """The events of one subject, oldest first. Immutable, so an encoder may hold it.

    ``revision`` counts the reasons to encode this window again (an event, a catalogue change);
    it orders writes and is no part of the window's identity: compare :meth:`content`.
    ``era`` rises when Redis knows higher tokens than the worker that owns the partition.
    ``unresolved`` says that an item in it was not known when it was last looked at.
    """

    subject_id: str
    data: bytes = b""
    rare: bytes = b""
    revision: int = 0
    era: int = 0
    unresolved: bool = False
    items: ItemTable = SHARED

    def __len__(self) -> int:
        return len(self.data) // EVENT

    @property
    def event_time_ms(self) -> int:
        """Event time of the newest event, Unix ms; 0 for an empty window."""
        n = len(self.data) // EVENT
        last = (ID + WORD) * n
        return int.from_bytes(self.data[last - WORD : last], "little") >> 16

    @property
    def item_ids(self) -> set[str]:
        """The distinct items in the window."""
        names = self.items.names
        return {names[number] for number in self.item_numbers() if number}

    @property
    def events(self) -> tuple[Behaviour, ...]:
        """The events one by one, oldest first: for tools and tests, it makes an object of each."""
        return tuple(behaviour(row, self.items) for row in self.rows())

    def item_numbers(self) -> tuple[int, ...]:
        """Give the number of each event's item in ``items``; 0 for none."""
        return unpack_numbers(self.data[(ID + WORD) * len(self) :])

    def id_hashes(self) -> set[bytes]:
        """Give the hashes of the event ids."""
        return {self.data[i : i + ID] for i in range(0, ID * len(self), ID)}

    def words_and_items(self) -> tuple[bytes, bytes]:
        """Give the second and the third column."""
        n = len(self)
        return self.data[ID * n : (ID + WORD) * n], self.data[(ID + WORD) * n :]

    def rows(self) -> Iterator[Row]:
        """Take the window apart."""
        data, n = self.data, len(self)
        words = struct.unpack_from(f"<{n}Q", data, ID * n)
        entries = split(self.rare)
        entry = b""
        for i, (word, item) in enumerate(zip(words, self.item_numbers(), strict=True)):
            flags = word & 0xFF
            if flags & HAS_RARE and not (flags & SAME_RARE and i):
                entry = next(entries)
            yield Row(
                word >> 16,
                data[ID * i : ID * (i + 1)],
                word >> 8 & 0xFF,
                flags & ~SAME_RARE,
                item,
                entry if flags & HAS_RARE else b"",
            )

    def first(self, k: int) -> BehaviourWindow:
        """Give the window of the ``k`` oldest events."""
        n, data = len(self), self.data
        words, items = data[ID * n : ID * n + WORD * k], (ID + WORD) * n
        n_entries = count_entries(words[::WORD])
        last = 0
        for _ in range(n_entries):
            last += first_length(self.rare[last:])
        packed = data[: ID * k] + words + data[items : items + ITEM * k]
        return msgspec.structs.replace(self, data=packed, rare=self.rare[:last])

    def rare_after(self, k: int) -> bytes:
        """Give the rare fields without the entries that only the ``k`` oldest events refer to."""
        n, rare = len(self), self.rare
        if not rare:
            return rare
        flags = self.data[ID * n : ID * n + WORD * (k + 1) : WORD]
        for i in range(k):
            shared = i + 1 < n and flags[i + 1] & HAS_RARE and flags[i + 1] & SAME_RARE
            if flags[i] & HAS_RARE and not shared:
                rare = rare[first_length(rare) :]
        return rare

    def begins_with(self, other: BehaviourWindow, k: int) -> bool:
        """Tell whether this window begins with another's events but for its ``k`` oldest.

        The two are of one table. False may also come of windows that were built in other ways.
        """
        n, n_other = len(self), len(other)
        rest = n_other - k
        ours, theirs = self.data, other.data
        return (
            rest <= n
            and ours[: ID * rest] == theirs[ID * k : ID * n_other]
            and ours[ID * n : ID * n + WORD * rest]
            == theirs[ID * n_other + WORD * k : (ID + WORD) * n_other]
            and ours[(ID + WORD) * n : (ID + WORD) * n + ITEM * rest]
            == theirs[(ID + WORD) * n_other + ITEM * k :]
            and self.rare.startswith(other.rare_after(k))
        )

    def with_rows(self, rows: Iterable[Row]) -> BehaviourWindow:
        """Give a window of these rows, which are in order; subject, token and table stay."""
        ids, words, items, entries = list[bytes](), list[int](), list[int](), list[bytes]()
        before = b""
        for row in rows:
            flags = row.flags
            if row.rare:
                if row.rare == before:
                    flags |= SAME_RARE
                else:
                    entries.append(row.rare)
            before = row.rare
            ids.append(row.id_hash)
            words.append(row.ts << 16 | row.code << 8 | flags)
            items.append(row.item)
        data = b"".join(ids) + struct.pack(f"<{len(words)}Q{len(items)}I", *words, *items)
        return msgspec.structs.replace(self, data=data, rare=b"".join(entries))

    def moved(self, items: ItemTable) -> BehaviourWindow:
        """Give the same window by the numbers of another table."""
        if items is self.items:
            return self
        first = (ID + WORD) * len(self)
        data = self.data[:first] + items.moved(self.data[first:], self.items)
        return msgspec.structs.replace(self, data=data, items=items)

    def content(self) -> bytes:
        """Give the canonical bytes of what is in the window: equal windows, equal bytes.

        MessagePack array: hashes, words (little-endian u64), item ids, rare fields.
        """
        n = len(self)
        words = bytearray(self.data[ID * n : (ID + WORD) * n])
        if words:
            words[0] &= ~SAME_RARE  # what it may be the same as is gone
        ids = [self.items.id_of(number) for number in self.item_numbers()]
        return msgspec.msgpack.encode((self.data[: ID * n], bytes(words), ids, self.rare))


def count_entries(flags: bytes) -> int:
    """Count the entries among the rare fields that events with these flags refer to."""
    if not flags:
        return 0
    # The oldest event has its own, whatever it was once the same as.
    return flags.translate(_OWNS).count(1) + ((flags[0] & _RARE_AND_SAME) == _RARE_AND_SAME)


def behaviour(row: Row, items: ItemTable) -> Behaviour:
    """Make an object of a row."""
    rare: Rare = fields(row.rare)
    return Behaviour(
        id_hash=row.id_hash,
        ts=row.ts,
        type=TYPES[row.code],
        item_id=items.id_of(row.item),
        **msgspec.structs.asdict(rare),
    )


def event_of(kept: Behaviour, subject_id: str, event_id: str) -> Event:
    """Give the event that a window keeps, its text as short as it is kept."""
    rest = msgspec.structs.asdict(kept)
    del rest["id_hash"]
    return Event(**{**rest, "event_id": event_id, "user_id": kept.user_id or subject_id})


def touch(window: BehaviourWindow, *, unresolved: bool | None = None) -> BehaviourWindow:
    """Give the window with its revision raised: the same content has to be encoded again."""
    return msgspec.structs.replace(
        window,
        revision=window.revision + 1,
        unresolved=window.unresolved if unresolved is None else unresolved,
    )
