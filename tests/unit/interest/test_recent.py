"""Recent behaviours: what a reader gets back is what the window holds, newest first."""

from __future__ import annotations

import msgspec
import pytest

from interest.errors import CorruptRecord
from interest.event import Event, EventType
from interest.fold import window_of
from interest.recent import RecentBehaviour, recent_from_bytes, recent_of, recent_to_bytes

T0 = 1_700_000_000_000

EVENTS = [
    Event(event_id="1", user_id="u", type=EventType.VIEW, ts=T0, item_id="mug"),
    Event(event_id="2", user_id="u", type=EventType.SEARCH, ts=T0 + 1, text="杯" * 500),
    Event(event_id="3", user_id="u", type=EventType.REVIEW, ts=T0 + 2, item_id="mug", rating=4.5),
    Event(event_id="4", user_id="u", type=EventType.REVIEW, ts=T0 + 3, item_id="pot", text="good"),
]


def test_a_reader_gets_the_behaviours_of_the_window_newest_first() -> None:
    assert recent_from_bytes(recent_of(window_of("u", EVENTS))) == (
        RecentBehaviour(EventType.REVIEW, T0 + 3, "pot", "good"),
        RecentBehaviour(EventType.REVIEW, T0 + 2, "mug"),
        RecentBehaviour(EventType.SEARCH, T0 + 1, None, "杯" * 128),
        RecentBehaviour(EventType.VIEW, T0, "mug"),
    )
    assert recent_from_bytes(recent_of(window_of("u", []))) == ()


def test_what_was_read_can_be_written_again() -> None:
    read = recent_from_bytes(recent_of(window_of("u", EVENTS)))
    assert recent_from_bytes(recent_to_bytes(read)) == read


WORD = (T0 << 16).to_bytes(8, "little")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x90",
        b"\xc1",
        msgspec.msgpack.encode((WORD, [], {})),
        msgspec.msgpack.encode((WORD[:7], ["a"], {})),
        msgspec.msgpack.encode((b"\x00\xff" + WORD[2:], ["a"], {})),
        msgspec.msgpack.encode((WORD, [1], {})),
    ],
)
def test_records_of_somebody_else_are_refused(raw: bytes) -> None:
    with pytest.raises(CorruptRecord, match="recent behaviours"):
        recent_from_bytes(raw)
