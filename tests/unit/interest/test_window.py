"""The behaviour window: a join over events, whatever their order, number and grouping."""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interest.errors import CorruptRecord
from interest.event import Event, EventTimeMs, EventType, event_digest
from interest.window import (
    BehaviourWindow,
    WindowLimits,
    fold,
    touch,
    window_from_bytes,
    window_to_bytes,
)

T0 = 1_700_000_000_000
DAY = 86_400_000
LIMITS = WindowLimits()
EMPTY = BehaviourWindow(subject_id="u")


def event(event_id: str, ts: int = T0, **fields: object) -> Event:
    values: dict[str, object] = {"user_id": "u", "type": EventType.CLICK, "item_id": "i"}
    return Event(event_id=event_id, ts=EventTimeMs(ts), **{**values, **fields})  # type: ignore[arg-type]


def ids(window: BehaviourWindow) -> list[str]:
    return [e.event_id for e in window.events]


def plain_window(events: Iterable[Event], limits: WindowLimits) -> list[Event]:
    """What the definition says, written as plainly as it can be."""
    best: dict[str, Event] = {}
    for e in events:
        if e.type is EventType.IMPRESSION:
            continue
        held = best.get(e.event_id)
        if held is None or (e.ts, event_digest(e)) > (held.ts, event_digest(held)):
            best[e.event_id] = e
    newest = sorted(best.values(), key=lambda e: (e.ts, e.event_id))[-limits.max_events :]
    return [e for e in newest if e.ts > newest[-1].ts - limits.span_ms]


events_strategy = st.lists(
    st.builds(
        event,
        event_id=st.sampled_from([f"e{i}" for i in range(30)]),
        ts=st.integers(T0, T0 + 40 * DAY).map(lambda t: t - t % (DAY // 2)),
        item_id=st.sampled_from(["i", "j"]),
        type=st.sampled_from([EventType.CLICK, EventType.RETURN, EventType.IMPRESSION]),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(
    events=events_strategy,
    seed=st.integers(0, 2**32),
    limits=st.sampled_from([LIMITS, WindowLimits(max_events=5), WindowLimits(span_ms=3 * DAY)]),
)
def test_any_permutation_duplication_and_split_gives_the_same_window(
    events: list[Event], seed: int, limits: WindowLimits
) -> None:
    rng = random.Random(seed)
    shuffled = events + rng.choices(events, k=len(events) // 2) if events else []
    rng.shuffle(shuffled)
    window = EMPTY
    while shuffled:
        n = rng.randint(1, len(shuffled))
        window, shuffled = fold(window, shuffled[:n], limits), shuffled[n:]
    at_once = fold(EMPTY, events, limits)
    assert window.content() == at_once.content()
    assert list(window.events) == plain_window(events, limits)


def test_the_newest_fifty_stay() -> None:
    window = fold(EMPTY, [event(f"e{i:03}", T0 + i) for i in range(120)], LIMITS)
    assert ids(window) == [f"e{i:03}" for i in range(70, 120)]


def test_ties_in_time_are_broken_by_event_id() -> None:
    window = fold(EMPTY, [event("b"), event("a"), event("c")], WindowLimits(max_events=2))
    assert ids(window) == ["b", "c"]


def test_the_old_edge_of_the_span_is_exclusive() -> None:
    #   [T0]      [T0+1] ......................... [T0+30d]
    #   dropped   stays                            newest
    window = fold(
        EMPTY, [event("edge"), event("inside", T0 + 1), event("new", T0 + 30 * DAY)], LIMITS
    )
    assert ids(window) == ["inside", "new"]


def test_a_late_event_lands_in_its_place() -> None:
    window = fold(EMPTY, [event("a", T0), event("c", T0 + 2)], LIMITS)
    assert ids(fold(window, [event("b", T0 + 1)], LIMITS)) == ["a", "b", "c"]


def test_of_two_contents_under_one_id_the_later_wins_then_the_greater_digest() -> None:
    early, late = event("a", T0, item_id="x"), event("a", T0 + 5, item_id="y")
    assert fold(fold(EMPTY, [late], LIMITS), [early], LIMITS).events == (late,)
    one, two = event("a", item_id="x"), event("a", item_id="y")
    greater = max(one, two, key=event_digest)
    for order in ([one, two], [two, one]):
        assert fold(EMPTY, order, LIMITS).events == (greater,)


def test_an_impression_never_enters_the_window() -> None:
    shown = event("a", type=EventType.IMPRESSION, request_id="r", position=0, model_id="m")
    assert fold(EMPTY, [shown], LIMITS) is EMPTY


def test_folding_again_is_a_no_op_and_keeps_the_revision() -> None:
    window = fold(EMPTY, [event("a"), event("b")], LIMITS)
    assert window.revision == 1
    assert fold(window, [event("b"), event("a")], LIMITS) is window


def test_the_revision_is_no_part_of_the_content() -> None:
    window = fold(EMPTY, [event("a")], LIMITS)
    again = touch(window, unresolved=True)
    assert again.revision == window.revision + 1
    assert again.unresolved
    assert again.content() == window.content()


def test_long_texts_are_cut_on_their_way_in() -> None:
    window = fold(EMPTY, [event("a", text="x" * 5000)], LIMITS)
    assert window.events[0].text == "x" * LIMITS.text_chars
    assert fold(window, [event("a", text="x" * 5000)], LIMITS) is window


@given(events=events_strategy)
def test_the_binary_form_gives_the_same_window_back(events: list[Event]) -> None:
    full = event(
        "full", T0 + 50 * DAY, type=EventType.REVIEW, text="好", rating=2.0, dwell_ms=3,
        session_id="s", platform="p", domain="d", request_id="r", user_id="other",
    )  # fmt: skip
    window = msgspec.structs.replace(fold(EMPTY, [*events, full], LIMITS), era=3, unresolved=True)
    restored, generation = window_from_bytes(window_to_bytes(window, 7))
    assert restored == window
    assert restored.content() == window.content()
    assert generation == 7


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x00" * 40])
def test_bytes_that_are_no_window_are_refused(raw: bytes) -> None:
    with pytest.raises(CorruptRecord):
        window_from_bytes(raw)


def test_a_window_of_another_format_is_refused() -> None:
    raw = bytearray(window_to_bytes(EMPTY, 1))
    raw[1] = 2  # the format number is the first element of the array
    with pytest.raises(CorruptRecord, match="format 2"):
        window_from_bytes(bytes(raw))


def test_limits_outside_the_plausible_are_refused() -> None:
    with pytest.raises(ValueError, match="window limits"):
        WindowLimits(max_events=0)
