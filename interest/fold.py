"""The fold that builds a window from events.

A window is the newest ``max_events`` events by time and hash of the id that lie less than
``span_ms`` before the user's own newest event. It is a set by event id; of two contents under one
id the greater (ts, digest of the content) wins. Nothing else decides what is in it: no arrival
order, no offset, no wall clock. So the fold is a join: any permutation, duplication and split of
the same events gives the same window, to the byte.

Why dropping events for good is safe: an event that falls out has ``max_events`` other ids above
it, or a newest event ``span_ms`` above it, and both only ever grow.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import astuple

from interest.event import TYPE_CODES, TYPES, Event, EventType, id_hash
from interest.item_table import ItemTable
from interest.rare import entry_of, entry_of_session
from interest.window import (
    EVENT,
    HAS_DWELL,
    HAS_RARE,
    HAS_RATING,
    HAS_TEXT,
    ID,
    ITEM,
    SAME_RARE,
    WORD,
    BehaviourWindow,
    Row,
    WindowLimits,
)

_IMPRESSION: Final = EventType.IMPRESSION


class Change(NamedTuple):
    """A window that changed, and what that was: words and item numbers, as the window has them."""

    window: BehaviourWindow
    entered_words: bytes
    entered_items: bytes
    left_words: bytes
    left_items: bytes


def enters_window(event: Event) -> bool:
    """Tell whether an event is a behaviour; an impression is what was shown, not done."""
    return event.type is not _IMPRESSION


def fold(window: BehaviourWindow, events: Iterable[Event], limits: WindowLimits) -> BehaviourWindow:
    """Give the window with ``events`` in it; the same object when nothing changed.

    Pure. The events are of the window's subject and need no order. The old edge of the span is
    exclusive: an event stays while ``ts > newest - span_ms``. The revision rises by one when
    the content changed, however many events came.
    """
    changed = change(window, events, limits)
    return window if changed is None else changed.window


def window_of(
    subject_id: str, events: Iterable[Event], limits: WindowLimits | None = None
) -> BehaviourWindow:
    """Build the window of some events."""
    return fold(BehaviourWindow(subject_id), events, limits or WindowLimits())


def change(window: BehaviourWindow, events: Iterable[Event], limits: WindowLimits) -> Change | None:
    """Fold, and tell what entered and what left; None when nothing changed."""
    behaviours = [event for event in events if event.type is not _IMPRESSION]
    if not behaviours:
        return None
    return _appended(window, behaviours, limits) or _merged(
        window,
        [row_of(e, window.subject_id, window.items, limits.text_chars) for e in behaviours],
        limits,
    )


def row_of(event: Event, subject_id: str, items: ItemTable, text_chars: int) -> Row:
    """Take an event apart as a window keeps it."""
    rare = entry_of(event, subject_id, text_chars)
    return Row(
        event.ts,
        id_hash(event.event_id),
        TYPE_CODES[event.type],
        _flags(event) if rare else 0,
        items.number(event.item_id),
        rare,
    )


def _flags(event: Event) -> int:
    return (
        HAS_RARE
        | (HAS_TEXT if event.text is not None else 0)
        | (HAS_RATING if event.rating is not None else 0)
        | (HAS_DWELL if event.dwell_ms is not None else 0)
    )


def _appended(window: BehaviourWindow, events: list[Event], limits: WindowLimits) -> Change | None:
    """Fold the usual case, everything new, and newer than what is there; None in any other.

    Every event of a worker passes here, so this is written for speed.
    """
    data, subject_id, number = window.data, window.subject_id, window.items.number
    n = len(data) // EVENT
    first_word, first_item = ID * n, (ID + WORD) * n
    held = data[:first_word]
    find = held.find
    rare, flags, last_ts, last_id = window.rare, 0, -1, b""
    if n:
        last_word = int.from_bytes(data[first_item - WORD : first_item], "little")
        flags, last_ts, last_id = last_word & 0xFF, last_word >> 16, held[-ID:]
    oldest_ms = events[-1].ts - limits.span_ms
    n_left = max(0, n + len(events) - limits.max_events)
    while n_left < n and _ts(data, n, n_left) <= oldest_ms:
        n_left += 1
    if (n_left >= n and n_left) or events[0].ts <= oldest_ms:
        return None  # nothing stays of what was there, or not all of what comes
    if rare and n_left:
        rare = window.rare_after(n_left)
    ids, words, items = list[bytes](), list[int](), list[int]()
    for event in events:
        (
            event_id, user_id, type_, ts, item_id, session_id, platform, domain,
            text, rating, dwell_ms, request_id, position, model_id, propensity, schema,
        ) = astuple(event)  # fmt: skip
        hashed = id_hash(event_id)
        if ts < last_ts or (ts == last_ts and hashed <= last_id) or find(hashed) >= 0:
            return None
        before = flags & HAS_RARE
        if (
            text is None
            and rating is None
            and dwell_ms is None
            and request_id is None
            and position is None
            and model_id is None
            and propensity is None
            and schema == 1
            and user_id == subject_id
        ):
            entry = entry_of_session(session_id, platform, domain)
            flags = HAS_RARE if entry else 0
        else:
            entry = entry_of(event, subject_id, limits.text_chars)
            flags = _flags(event)
        if entry:
            if before and rare.endswith(entry):
                flags |= SAME_RARE
            else:
                rare += entry
        ids.append(hashed)
        words.append(ts << 16 | TYPE_CODES[type_] << 8 | flags)
        items.append(number(item_id))
        last_ts, last_id = ts, hashed
    k = len(ids)
    if k > 1 and len(set(ids)) < k:
        return None
    new_words, new_items = struct.pack(f"<{k}Q", *words), struct.pack(f"<{k}I", *items)
    kept_word, kept_item = first_word + WORD * n_left, first_item + ITEM * n_left
    parts = (
        held[ID * n_left :], *ids,
        data[kept_word:first_item], new_words,
        data[kept_item:], new_items,
    )  # fmt: skip
    folded = BehaviourWindow(
        subject_id, b"".join(parts), rare,
        window.revision + 1, window.era, window.unresolved, window.items,
    )  # fmt: skip
    return Change(
        folded, new_words, new_items, data[first_word:kept_word], data[first_item:kept_item]
    )


def _ts(data: bytes, n: int, i: int) -> int:
    first = ID * n + WORD * i
    return int.from_bytes(data[first : first + WORD], "little") >> 16


def _merged(window: BehaviourWindow, rows: Iterable[Row], limits: WindowLimits) -> Change | None:
    """Fold any case."""
    held = list(window.rows())
    by_id = {row.id_hash: row for row in held}
    for row in rows:
        rival = by_id.get(row.id_hash)
        if rival is None or _outranks(row, rival, window.items):
            by_id[row.id_hash] = row
    newest = sorted(by_id.values())[-limits.max_events :]
    oldest_ms = newest[-1].ts - limits.span_ms
    newest = [row for row in newest if row.ts > oldest_ms]
    if newest == held:
        return None
    folded = window.with_rows(newest)
    return difference(window, msgspec.structs.replace(folded, revision=window.revision + 1))


def _outranks(row: Row, held: Row, items: ItemTable) -> bool:
    if row.ts != held.ts:
        return row.ts > held.ts
    return row != held and digest(row, items) > digest(held, items)


def digest(row: Row, items: ItemTable) -> bytes:
    """Digest the content: decides between two contents under one event id."""
    content = msgspec.msgpack.encode((TYPES[row.code], items.id_of(row.item), row.rare))
    return hashlib.blake2b(content, digest_size=16).digest()


def difference(old: BehaviourWindow, new: BehaviourWindow) -> Change:
    """Tell what entered and what left between two windows of one table."""
    if old.data == new.data:
        return Change(new, b"", b"", b"", b"")
    before, after = set(old.rows()), set(new.rows())
    return Change(new, *_columns(after - before), *_columns(before - after))


def _columns(rows: Iterable[Row]) -> tuple[bytes, bytes]:
    ordered = list(rows)
    words = b"".join(
        (row.ts << 16 | row.code << 8 | row.flags).to_bytes(WORD, "little") for row in ordered
    )
    return words, b"".join(row.item.to_bytes(ITEM, "little") for row in ordered)


def joined(
    window: BehaviourWindow, other: BehaviourWindow, limits: WindowLimits
) -> BehaviourWindow:
    """Give the window with what another window of its subject has; like :func:`fold`."""
    changed = _merged(window, other.moved(window.items).rows(), limits) if len(other) else None
    return window if changed is None else changed.window


def only(window: BehaviourWindow, keep: Callable[[int, bytes], bool]) -> BehaviourWindow:
    """Give the window without the events that ``keep`` refuses, by time and hash of the id."""
    rows = list(window.rows())
    kept = [row for row in rows if keep(row.ts, row.id_hash)]
    return window if len(kept) == len(rows) else window.with_rows(kept)
