"""Popular items: exact counts derived from windows."""

from __future__ import annotations

import math

import pytest

from interest.event import Event, EventTimeMs, EventType
from streams.popular import PopularItems

DAY = 86_400_000


def event(item_id: str, day: int, type: EventType = EventType.CLICK) -> Event:
    return Event(
        event_id=f"{item_id}{day}{type}", user_id="u", type=type, item_id=item_id,
        ts=EventTimeMs(day * DAY),
    )  # fmt: skip


def test_an_event_counts_half_after_a_half_life() -> None:
    popular = PopularItems()
    popular.replace((), [event("old", 15_000), event("new", 15_007), event("new", 15_000)])
    scores = popular.top(10, half_life_days=7)
    assert scores["new"] - scores["old"] == pytest.approx(math.log2(3))


def test_returns_and_removals_do_not_make_an_item_popular() -> None:
    popular = PopularItems()
    popular.replace((), [event("a", 1, EventType.RETURN), event("a", 1, EventType.REMOVE)])
    assert popular.top(10, 7) == {}


def test_what_leaves_a_window_leaves_the_counts_exactly() -> None:
    popular = PopularItems()
    first, second = [event("a", 1), event("b", 2)], [event("b", 2), event("c", 3)]
    popular.replace((), first)
    popular.replace(first, second)
    fresh = PopularItems()
    fresh.replace((), second)
    assert popular.top(10, 7) == fresh.top(10, 7)
    popular.replace(second, ())
    assert popular.top(10, 7) == {}


def test_only_the_best_are_kept_and_distant_days_do_not_overflow() -> None:
    popular = PopularItems()
    popular.replace((), [event(f"i{day}", day) for day in range(10_000, 30_000, 100)])
    assert list(popular.top(2, half_life_days=0.01)) == ["i29900", "i29800"]
