"""The behaviour window of a user, and the fold that builds it.

A window is the newest ``max_events`` events by (ts, event_id) that lie less than ``span_ms``
before the user's own newest event. It is a set by event id; of two contents under one id the
greater (ts, digest of the content) wins. Nothing else decides what is in it: no arrival order,
no offset, no wall clock. So the fold is a join: any permutation, duplication and split of the
same events gives the same window, to the byte.

Why dropping events for good is safe: an event that falls out has ``max_events`` other ids above
it, or a newest event ``span_ms`` above it, and both only ever grow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final

import msgspec

from interest.errors import CorruptRecord
from interest.event import Event, EventTimeMs, EventType, event_digest

_FORMAT: Final = 1
_DAY_MS: Final = 86_400_000


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


class BehaviourWindow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The events of one subject, oldest first. Immutable, so an encoder may hold it.

    ``revision`` counts the reasons to encode this window again (an event, a catalogue change);
    it orders writes and is no part of the window's identity: compare :meth:`content`.
    ``era`` rises when Redis knows higher tokens than the worker that owns the partition.
    ``unresolved`` says that an item in it was not known when it was last looked at.
    """

    subject_id: str
    events: tuple[Event, ...] = ()
    revision: int = 0
    era: int = 0
    unresolved: bool = False

    @property
    def event_time_ms(self) -> int:
        """Event time of the newest event, Unix ms; 0 for an empty window."""
        return int(self.events[-1].ts) if self.events else 0

    @property
    def item_ids(self) -> set[str]:
        """The distinct items in the window."""
        return {event.item_id for event in self.events if event.item_id is not None}

    def content(self) -> bytes:
        """Give the canonical bytes of what is in the window: equal windows, equal bytes."""
        return _encoder.encode([_to_row(event, self.subject_id) for event in self.events])


def enters_window(event: Event) -> bool:
    """Tell whether an event is a behaviour; an impression is what was shown, not done."""
    return event.type is not EventType.IMPRESSION


def fold(window: BehaviourWindow, events: Iterable[Event], limits: WindowLimits) -> BehaviourWindow:
    """Give the window with ``events`` in it; the same object when nothing changed.

    Pure. The events are of the window's subject and need no order. The old edge of the span is
    exclusive: an event stays while ``ts > newest - span_ms``. The revision rises by one when
    the content changed, however many events came.
    """
    arrived = [_cut_text(event, limits.text_chars) for event in events if enters_window(event)]
    if not arrived:
        return window
    ids = {event.event_id for event in window.events}
    in_order = len(arrived) == 1 or all(
        earlier.order < later.order for earlier, later in itertools.pairwise(arrived)
    )
    if (
        in_order
        and (not window.events or window.events[-1].order < arrived[0].order)
        and ids.isdisjoint(new_ids := {event.event_id for event in arrived})
        and len(new_ids) == len(arrived)
    ):
        # The usual case: everything is new and newer than what is there.
        ordered = [*window.events, *arrived]
    else:
        ordered = _merge(window.events, arrived)
    folded = _within(ordered, limits)
    if folded == window.events:
        return window
    return msgspec.structs.replace(window, events=folded, revision=window.revision + 1)


def _merge(held: Iterable[Event], arrived: Iterable[Event]) -> list[Event]:
    by_id = {event.event_id: event for event in held}
    for event in arrived:
        rival = by_id.get(event.event_id)
        if rival is None or _outranks(event, rival):
            by_id[event.event_id] = event
    return sorted(by_id.values(), key=lambda event: event.order)


def _within(ordered: list[Event], limits: WindowLimits) -> tuple[Event, ...]:
    """Cut what lies beyond the limits; the newest event always stays."""
    newest = ordered[-limits.max_events :]
    oldest_ms = newest[-1].ts - limits.span_ms
    if newest[0].ts > oldest_ms:
        return tuple(newest)
    first = next(i for i, event in enumerate(newest) if event.ts > oldest_ms)
    return tuple(newest[first:])


def touch(window: BehaviourWindow, *, unresolved: bool | None = None) -> BehaviourWindow:
    """Give the window with its revision raised: the same content has to be encoded again."""
    return msgspec.structs.replace(
        window,
        revision=window.revision + 1,
        unresolved=window.unresolved if unresolved is None else unresolved,
    )


def _cut_text(event: Event, chars: int) -> Event:
    if event.text is None or len(event.text) <= chars:
        return event
    return msgspec.structs.replace(event, text=event.text[:chars])


def _outranks(event: Event, held: Event) -> bool:
    if event.ts != held.ts:
        return event.ts > held.ts
    return event != held and event_digest(event) > event_digest(held)


class _Row(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """One event as a positional array; append fields at the end only, with a default."""

    event_id: str
    ts: int
    type: EventType
    item_id: str | None = None
    # The account, where it is another than the subject (a person behind several accounts).
    user_id: str | None = None
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
    schema: int = 1


class _StoredWindow(msgspec.Struct, array_like=True, gc=False):
    format: int
    subject_id: str
    era: int
    generation: int
    revision: int
    unresolved: bool
    rows: list[_Row]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_StoredWindow)


def _to_row(event: Event, subject_id: str) -> _Row:
    return _Row(
        event.event_id,
        int(event.ts),
        event.type,
        event.item_id,
        None if event.user_id == subject_id else event.user_id,
        event.text,
        event.rating,
        event.dwell_ms,
        event.session_id,
        event.platform,
        event.domain,
        event.request_id,
        event.position,
        event.model_id,
        event.propensity,
        event.schema,
    )


def _to_event(row: _Row, subject_id: str) -> Event:
    return Event(
        event_id=row.event_id,
        user_id=subject_id if row.user_id is None else row.user_id,
        type=row.type,
        ts=EventTimeMs(row.ts),
        item_id=row.item_id,
        text=row.text,
        rating=row.rating,
        dwell_ms=row.dwell_ms,
        session_id=row.session_id,
        platform=row.platform,
        domain=row.domain,
        request_id=row.request_id,
        position=row.position,
        model_id=row.model_id,
        propensity=row.propensity,
        schema=row.schema,
    )


def window_to_bytes(window: BehaviourWindow, generation: int) -> bytes:
    """Give the changelog record of a window: MessagePack array, format number first.

    Args:
        generation: consumer-group generation of the worker that writes.
    """
    return _encoder.encode(
        _StoredWindow(
            _FORMAT,
            window.subject_id,
            window.era,
            generation,
            window.revision,
            window.unresolved,
            [_to_row(event, window.subject_id) for event in window.events],
        )
    )


def window_from_bytes(raw: bytes) -> tuple[BehaviourWindow, int]:
    """Read a changelog record back; return the window and the generation that wrote it.

    Raises:
        CorruptRecord: other bytes, or a format this version does not know.
    """
    try:
        stored = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"window record of {len(raw)} bytes: {error}") from error
    if stored.format != _FORMAT:
        raise CorruptRecord(f"window record of format {stored.format}, expected {_FORMAT}")
    window = BehaviourWindow(
        subject_id=stored.subject_id,
        events=tuple(_to_event(row, stored.subject_id) for row in stored.rows),
        revision=stored.revision,
        era=stored.era,
        unresolved=stored.unresolved,
    )
    return window, stored.generation
