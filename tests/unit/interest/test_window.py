"""The behaviour window: a join over events, whatever their order, number and grouping."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interest.columns import columns, rare_of
from interest.errors import CorruptRecord
from interest.event import TYPES, Event, EventType, id_hash, name_of
from interest.fold import Change, change, difference, digest, fold, joined, only, row_of, window_of
from interest.item_table import SHARED, ItemTable
from interest.window import BehaviourWindow, WindowLimits, event_of, touch
from interest.window_bytes import window_from_bytes, window_to_bytes

T0 = 1_700_000_000_000
DAY = 86_400_000
LIMITS = WindowLimits()
EMPTY = BehaviourWindow("u")


def event(event_id: str, ts: int = T0, **fields: object) -> Event:
    values: dict[str, object] = {"user_id": "u", "type": EventType.CLICK, "item_id": "i"}
    return Event(event_id=event_id, ts=ts, **{**values, **fields})  # type: ignore[arg-type]


def ids(window: BehaviourWindow) -> list[bytes]:
    return [kept.id_hash for kept in window.events]


def hashes(*event_ids: str) -> list[bytes]:
    return [id_hash(event_id) for event_id in event_ids]


def content_digest(e: Event) -> bytes:
    return digest(row_of(e, "u", SHARED, LIMITS.text_chars), SHARED)


def as_events(window: BehaviourWindow, names: Iterable[str]) -> list[Event]:
    """The events of a window, their ids looked up."""
    known = {id_hash(name): name for name in names}
    return [event_of(kept, window.subject_id, known[kept.id_hash]) for kept in window.events]


def plain_window(events: Iterable[Event], limits: WindowLimits) -> list[Event]:
    """What the definition says, written as plainly as it can be."""
    best: dict[str, Event] = {}
    for e in events:
        if e.type is EventType.IMPRESSION:
            continue
        held = best.get(e.event_id)
        if held is None or (e.ts, content_digest(e)) > (held.ts, content_digest(held)):
            best[e.event_id] = e
    ordered = sorted(best.values(), key=lambda e: (e.ts, id_hash(e.event_id)))
    newest = ordered[-limits.max_events :]
    return [e for e in newest if e.ts > newest[-1].ts - limits.span_ms]


NAMES = [f"e{i}" for i in range(30)]
events_strategy = st.lists(
    st.builds(
        event,
        event_id=st.sampled_from(NAMES),
        ts=st.integers(T0, T0 + 40 * DAY).map(lambda t: t - t % (DAY // 2)),
        item_id=st.sampled_from(["i", "j"]),
        type=st.sampled_from([EventType.CLICK, EventType.RETURN, EventType.IMPRESSION]),
        session_id=st.sampled_from([None, "s", "t"]),
        dwell_ms=st.sampled_from([None, None, 5]),
        user_id=st.sampled_from(["u", "u", "account"]),
    ),
    max_size=60,
)
limits_strategy = st.sampled_from(
    [LIMITS, WindowLimits(max_events=5), WindowLimits(span_ms=3 * DAY)]
)


@settings(max_examples=300, deadline=None)
@given(events=events_strategy, seed=st.integers(0, 2**32), limits=limits_strategy)
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
    one_by_one = EMPTY
    for e in sorted(events, key=lambda e: (e.ts, id_hash(e.event_id))):
        one_by_one = fold(one_by_one, [e], limits)
    assert window.content() == at_once.content() == one_by_one.content()
    assert as_events(window, NAMES) == plain_window(events, limits)


@settings(max_examples=200, deadline=None)
@given(first=events_strategy, then=events_strategy, limits=limits_strategy)
def test_a_change_says_exactly_what_entered_and_what_left(
    first: list[Event], then: list[Event], limits: WindowLimits
) -> None:
    window = fold(EMPTY, first, limits)
    changed = change(window, then, limits)
    if changed is None:
        assert fold(window, then, limits) is window
        return
    whole = difference(window, changed.window)

    def moved(told: Change) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        return (
            _pairs(told.entered_words, told.entered_items),
            _pairs(told.left_words, told.left_items),
        )

    assert moved(changed) == moved(whole)
    assert changed.window.revision == window.revision + 1


def _pairs(words: bytes, items: bytes) -> list[tuple[int, int]]:
    """Time and type of each event, and its item."""
    times = (np.frombuffer(words, "<u8") >> 8).tolist()
    return sorted(zip(times, np.frombuffer(items, "<u4").tolist(), strict=True))


@settings(max_examples=100, deadline=None)
@given(one=events_strategy, other=events_strategy, limits=limits_strategy)
def test_windows_join_as_their_events_do(
    one: list[Event], other: list[Event], limits: WindowLimits
) -> None:
    left, right = (
        fold(EMPTY, one, limits),
        fold(BehaviourWindow("u", items=ItemTable()), other, limits),
    )
    assert joined(left, right, limits).content() == fold(EMPTY, one + other, limits).content()
    assert joined(left, left, limits) is left


def test_the_newest_fifty_stay() -> None:
    window = fold(EMPTY, [event(f"e{i:03}", T0 + i) for i in range(120)], LIMITS)
    assert ids(window) == hashes(*(f"e{i:03}" for i in range(70, 120)))


def test_ties_in_time_are_broken_by_the_hash_of_the_event_id() -> None:
    window = fold(EMPTY, [event("b"), event("a"), event("c")], WindowLimits(max_events=2))
    assert ids(window) == sorted(hashes("a", "b", "c"))[1:]


def test_the_hash_of_an_id_is_the_same_in_every_process_and_survives_its_name() -> None:
    assert id_hash("536365-1").hex() == "e5d551dad239eae9"
    assert id_hash(name_of(id_hash("536365-1"))) == id_hash("536365-1")
    assert id_hash("#no hex digits...") != id_hash("#no hex digits..")


def test_the_old_edge_of_the_span_is_exclusive() -> None:
    #   [T0]      [T0+1] ......................... [T0+30d]
    #   dropped   stays                            newest
    window = fold(
        EMPTY, [event("edge"), event("inside", T0 + 1), event("new", T0 + 30 * DAY)], LIMITS
    )
    assert ids(window) == hashes("inside", "new")


def test_a_late_event_lands_in_its_place() -> None:
    window = fold(EMPTY, [event("a", T0), event("c", T0 + 2)], LIMITS)
    assert ids(fold(window, [event("b", T0 + 1)], LIMITS)) == hashes("a", "b", "c")


def test_of_two_contents_under_one_id_the_later_wins_then_the_greater_digest() -> None:
    early, late = event("a", T0, item_id="x"), event("a", T0 + 5, item_id="y")
    assert as_events(fold(fold(EMPTY, [late], LIMITS), [early], LIMITS), ["a"]) == [late]
    one, two = event("a", item_id="x"), event("a", item_id="y")
    greater = max(one, two, key=content_digest)
    for order in ([one, two], [two, one]):
        assert as_events(fold(EMPTY, order, LIMITS), ["a"]) == [greater]


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


FULL = event(
    "full", T0 + 50 * DAY, type=EventType.REVIEW, text="好", rating=2.0, dwell_ms=3,
    session_id="s", platform="p", domain="d", request_id="r", user_id="other", position=4,
    model_id="m", propensity=0.5, schema=2,
)  # fmt: skip


def test_nothing_that_an_event_carries_is_lost_but_its_id() -> None:
    assert as_events(window_of("u", [FULL]), ["full"]) == [FULL]


def test_a_session_is_kept_once_for_the_events_that_share_it() -> None:
    shared = [event(f"e{i:03}", T0 + i, session_id="a long session" * 5) for i in range(200)]
    window = EMPTY
    for e in shared:
        window = fold(window, [e], LIMITS)
    assert len(window.rare) < 2 * len("a long session" * 5)
    assert {kept.session_id for kept in window.events} == {"a long session" * 5}


def test_a_full_window_takes_a_kilobyte_and_a_half() -> None:
    window = EMPTY
    for i in range(60):
        window = fold(window, [event(f"e{i}", T0 + i, item_id=f"i{i}", session_id="s")], LIMITS)
    assert len(window) == 50
    assert sum(map(sys.getsizeof, (window, window.data, window.rare, window.subject_id))) < 1300


@given(events=events_strategy)
def test_the_binary_form_gives_the_same_window_back(events: list[Event]) -> None:
    window = msgspec.structs.replace(fold(EMPTY, [*events, FULL], LIMITS), era=3, unresolved=True)
    raw = window_to_bytes(window, 7, ["full", bytes(range(8))])
    assert window_from_bytes(raw) == (window, 7, ("full", bytes(range(8))))
    elsewhere = ItemTable()
    elsewhere.number("another item")
    restored = window_from_bytes(raw, elsewhere).window
    assert restored.content() == window.content()
    assert restored.events == window.events


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x00" * 40])
def test_bytes_that_are_no_window_are_refused(raw: bytes) -> None:
    with pytest.raises(CorruptRecord):
        window_from_bytes(raw)


def test_a_window_of_another_format_is_refused() -> None:
    raw = bytearray(window_to_bytes(EMPTY, 1))
    raw[1] = 9  # the format number is the first element of the array
    with pytest.raises(CorruptRecord, match="format 9"):
        window_from_bytes(bytes(raw))
    with pytest.raises(CorruptRecord, match="format 1"):
        window_from_bytes(msgspec.msgpack.encode([1, "u", 0, 1, 1, False, []]))


@pytest.mark.parametrize("part", [6, 7, 8])
def test_a_window_whose_parts_do_not_fit_is_refused(part: int) -> None:
    stored = msgspec.msgpack.decode(window_to_bytes(fold(EMPTY, [FULL], LIMITS), 1))
    stored[part] = stored[part][:-1]
    with pytest.raises(CorruptRecord, match="do not fit"):
        window_from_bytes(msgspec.msgpack.encode(stored))


def test_columns_lay_out_many_windows_at_once() -> None:
    one = window_of("u", [event("a", T0, item_id="x"), event("b", T0 + 1, rating=1.0)])
    two = fold(
        BehaviourWindow("v", items=ItemTable()), [event("c", item_id="x", user_id="v")], LIMITS
    )
    laid = columns([one, EMPTY, two])
    assert laid.starts.tolist() == [0, 2, 2, 3]
    assert laid.ts.tolist() == [T0, T0 + 1, T0]
    assert [TYPES[code] for code in laid.types] == [EventType.CLICK] * 3
    assert [laid.names[number] for number in laid.items] == ["x", "i", "x"]
    assert [(position, rare.rating) for position, rare in rare_of(one)] == [(1, 1.0)]
    assert rare_of(two) == []


def test_a_window_moves_to_another_table_and_stays_the_same() -> None:
    window = window_of(
        "u",
        [
            event("a", T0, item_id="x"),
            event("q", T0 + 1, type=EventType.SEARCH, item_id=None, text="mug"),
        ],
    )
    elsewhere = ItemTable()
    moved = window.moved(elsewhere)
    assert moved.content() == window.content()
    assert moved.item_ids == {"x"}
    assert elsewhere.find("x") == 1


def test_events_can_be_taken_out_of_a_window() -> None:
    window = window_of("u", [event("a", T0), event("b", T0 + 1), event("c", T0 + 2)])
    assert ids(only(window, lambda ts, id_: id_ != id_hash("b"))) == hashes("a", "c")
    assert only(window, lambda ts, id_: True) is window


def test_limits_outside_the_plausible_are_refused() -> None:
    with pytest.raises(ValueError, match="window limits"):
        WindowLimits(max_events=0)


@given(events=events_strategy, k=st.integers(0, 60))
def test_a_window_can_be_parted_and_put_together(events: list[Event], k: int) -> None:
    window = fold(EMPTY, events, LIMITS)
    rows = list(window.rows())
    k = min(k, len(rows))
    assert list(window.first(k).rows()) == rows[:k]
    assert joined(window.with_rows(rows[k:]), window.first(k), LIMITS).content() == window.content()
    assert window.begins_with(window.first(k), 0)
    assert window.with_rows(rows[k:]).rare == window.rare_after(k)
