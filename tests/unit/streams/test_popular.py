"""Popular items: exact counts derived from windows."""

from __future__ import annotations

import math

import pytest

from interest.event import Event, EventType
from interest.fold import difference, window_of
from interest.item_table import SHARED, ItemTable
from interest.window import BehaviourWindow, WindowLimits
from streams.popular import PopularItems

DAY = 86_400_000


def event(item_id: str, day: int, type: EventType = EventType.CLICK) -> Event:
    return Event(
        event_id=f"{item_id}{day}{type}", user_id="u", type=type, item_id=item_id,
        ts=day * DAY,
    )  # fmt: skip


EVERYTHING = WindowLimits(max_events=1000, span_ms=2**60)
NOTHING = BehaviourWindow("u")


def window(*events: Event) -> BehaviourWindow:
    return window_of("u", events, EVERYTHING)


def counted(*events: Event) -> PopularItems:
    popular = PopularItems(SHARED)
    popular.add(window(*events))
    return popular


def test_an_event_counts_half_after_a_half_life() -> None:
    popular = counted(event("old", 15_000), event("new", 15_007), event("new", 15_000))
    scores = popular.top(10, half_life_days=7)
    assert scores["new"] - scores["old"] == pytest.approx(math.log2(3))


def test_returns_and_removals_do_not_make_an_item_popular() -> None:
    popular = counted(event("a", 1, EventType.RETURN), event("a", 1, EventType.REMOVE))
    assert popular.top(10, 7) == {}


def test_what_leaves_a_window_leaves_the_counts_exactly() -> None:
    first = window(event("a", 1), event("b", 2))
    second = window(event("b", 2), event("c", 3))
    popular = PopularItems(SHARED)
    popular.move(difference(NOTHING, first))
    popular.move(difference(first, second))
    fresh = PopularItems(SHARED)
    fresh.add(second)
    assert popular.top(10, 7) == fresh.top(10, 7)
    popular.drop(second)
    assert popular.top(10, 7) == {}


def test_only_the_best_are_kept_and_distant_days_do_not_overflow() -> None:
    popular = counted(*(event(f"i{day}", day) for day in range(10_000, 30_000, 100)))
    assert list(popular.top(2, half_life_days=0.01)) == ["i29900", "i29800"]


def test_ties_go_by_the_item_id() -> None:
    popular = counted(event("a", 1), event("c", 1), event("b", 1))
    assert list(popular.top(2, 7)) == ["c", "b"]


def test_another_numbering_of_items_changes_no_count() -> None:
    popular = counted(event("a", 1), event("b", 2), event("a", 2), event("c", 3))
    before = popular.top(10, 7)
    items = ItemTable()
    items.number("c")
    popular.renumber(items)
    assert popular.top(10, 7) == before
    popular.drop(window(event("c", 3)).moved(items))
    assert set(popular.top(10, 7)) == {"a", "b"}
