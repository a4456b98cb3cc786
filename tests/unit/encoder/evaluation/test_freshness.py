"""The same targets by vectors of different age."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from encoder.evaluation.freshness import measure, queries
from encoder.evaluation.log_dataset import dataset_of
from encoder.evaluation.schedules import delay, refresh
from interest.errors import BadInput
from interest.event import Event, EventType
from interest.item import Item
from interest.window import BehaviourWindow

#: Friday 2021-01-01 00:00 UTC.
BEGIN = 1_609_459_200
DAY = 86_400


def log(*users: Sequence[tuple[int, int]], n_items: int = 30) -> Dataset:
    """A log of (seconds, item), a sequence per user."""
    events = [
        Event(
            event_id=f"{user}-{n}",
            user_id=f"u{user}",
            type=EventType.VIEW,
            ts=(BEGIN + seconds) * 1000,
            item_id=f"i{item:02}",
        )
        for user, did in enumerate(users)
        for n, (seconds, item) in enumerate(did)
    ]
    return dataset_of(
        events, [Item(item_id=f"i{n:02}", title=f"thing {n}") for n in range(n_items)]
    )


class NextRow:
    """Scores the item after the newest one highest, and remembers what it was shown."""

    def __init__(self, n_items: int = 30) -> None:
        self._n_items = n_items
        self.seen: list[list[int]] = []

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        row = np.zeros((len(windows), self._n_items), np.float32)
        for i, window in enumerate(windows):
            items = [number - 1 for number in window.item_numbers()]
            self.seen.append(items)
            row[i, (items[-1] + 1) % self._n_items] = 1
        return row


def test_what_was_done_at_one_time_is_one_query_and_none_of_it_is_history() -> None:
    data = log([(0, 1), (0, 2), (60, 3), (60, 3), (60, 4), (90, 5)], [(0, 7)])
    asked = queries(data)
    assert (asked.times_s - BEGIN).tolist() == [60, 90]
    assert asked.ends.tolist() == [2, 5]
    assert asked.targets.tolist() == [3, 4, 5]
    assert asked.borders.tolist() == [0, 2, 3]


def test_the_newest_event_is_asked_for_where_it_is_alone_at_its_time() -> None:
    data = log([(0, 1), (60, 2), (90, 3)], [(0, 1), (60, 2), (60, 3)], [(0, 1)])
    asked = queries(data, last=True)
    assert (asked.users.tolist(), asked.targets.tolist()) == ([0], [3])


def test_queries_begin_at_the_split_and_are_of_the_types_asked_for() -> None:
    data = log([(0, 1), (60, 2), (90, 3)])
    assert queries(data, since_s=BEGIN + 90).targets.tolist() == [3]
    with pytest.raises(BadInput, match="nothing to ask for"):
        queries(data, types=[EventType.PURCHASE])
    with pytest.raises(BadInput, match="no times"):
        queries(data._replace(times_s=None))


def test_an_event_of_exactly_the_delay_is_known() -> None:
    times = np.array([100, 101])
    assert delay("0s").until(times).tolist() == [100, 101]
    assert delay("5s").until(times).tolist() == [96, 97]  # an event of second 95 is in
    assert delay("1m").until(times).tolist() == [41, 42]


def test_a_refresh_holds_what_lies_before_its_moment() -> None:
    friday_noon = np.array([BEGIN + DAY // 2 + 5])

    def since_begin(word: str) -> int:
        return int(refresh(word, BEGIN - 7).until(friday_noon)[0]) - BEGIN

    assert since_begin("event") == DAY // 2 + 5
    assert since_begin("hour") == DAY // 2
    assert since_begin("day") == since_begin("month") == 0
    assert since_begin("week") == -4 * DAY  # Monday
    assert since_begin("never") == -7
    assert (since_begin("30d") + BEGIN) % (30 * DAY) == 0


@pytest.mark.parametrize("word", ["0d", "soon", "5", "-1m", ""])
def test_a_refresh_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(BadInput):
        refresh(word, None)
    with pytest.raises(BadInput, match="--since"):
        refresh("never", None)


def test_a_stale_vector_does_not_see_what_came_late() -> None:
    data = log([(0, 1), (50, 10), (60, 11)])
    asked = queries(data, since_s=BEGIN + 60)
    ranker = NextRow()
    found = measure(data, asked, [delay("0s"), delay("10s"), delay("11s")], ranker)
    assert found[:, 0, 1].tolist() == [1, 1, 0]
    assert sorted(ranker.seen) == [[1], [1, 10]]  # what two schedules share is ranked once


def test_who_is_not_known_yet_gets_what_is_popular_at_that_moment() -> None:
    crowd = [[(10, 20), (11, 21)]] * 3
    data = log([(50, 1), (60, 20)], *crowd, [(10, 5), (99, 21)])
    asked = queries(data, since_s=BEGIN + 60)
    found = measure(data, asked, [delay("1m")], NextRow())
    # Nothing is a minute older than the first query; 20 and 21 are as popular.
    assert found[0, 0, 1] == pytest.approx(1 / math.log2(2.5))
    assert np.isnan(measure(data, asked, [delay("0s")], NextRow())[0, :, 1]).sum() == 0


def test_several_targets_are_weighed_by_the_best_order_and_new_items_are_ranked_alone() -> None:
    class Fixed:
        def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
            return np.tile(np.arange(30, 0, -1, dtype=np.float32), (len(windows), 1))

    data = log([(0, 0), (0, 1), (60, 1), (60, 3), (60, 25)])
    (figures,) = measure(data, queries(data), [delay("0s")], Fixed())[0]
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert figures[0] == pytest.approx(2 / 3)
    assert figures[1] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    # Without 0 and 1, which the user had, 3 is second; 25 is beyond ten.
    assert figures[2] == pytest.approx(1 / 2)
    assert figures[3] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_no_figure_of_new_items_where_the_user_had_all() -> None:
    data = log([(0, 1), (60, 1)])
    figures = measure(data, queries(data), [delay("0s")], NextRow())[0, 0]
    assert np.isnan(figures).tolist() == [False, False, True, True]


did = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 9)), min_size=1, max_size=12)


@given(st.lists(did, min_size=1, max_size=4), st.sampled_from(["0s", "1s", "7s", "1m"]))
def test_a_vector_holds_the_events_that_are_old_enough(
    users: list[list[tuple[int, int]]], word: str
) -> None:
    data = log(*users)
    try:
        asked = queries(data)
    except BadInput:
        return
    ranker = NextRow()
    measure(data, asked, [delay(word)], ranker)
    age = max(1, int(delay(word).until(np.array([0]))[0]) * -1 + 1)
    wanted = []
    for user, second in zip(asked.users.tolist(), asked.times_s.tolist(), strict=True):
        held = users[user]
        known = [item for s, item in sorted(held, key=lambda e: e[0]) if second - BEGIN - s >= age]
        if known:
            wanted.append(sorted(known))
    assert sorted(map(sorted, ranker.seen)) == sorted(wanted)


@given(st.permutations(range(6)))
def test_the_order_of_a_log_is_no_part_of_the_dataset(order: list[int]) -> None:
    events = [
        Event(
            event_id=f"e{n}",
            user_id=f"u{n % 2}",
            type=EventType.CLICK,
            ts=(n // 3) * 1000,
            item_id=f"i{n}",
        )
        for n in range(6)
    ]
    items = [Item(item_id="i3", title="three"), Item(item_id="never", title="met")]
    sorted_, mixed = (dataset_of(log, items) for log in (events, [events[n] for n in order]))
    assert (sorted_.fingerprint, sorted_.item_ids) == (mixed.fingerprint, mixed.item_ids)
    np.testing.assert_array_equal(sorted_.items, mixed.items)
    assert sorted_.titles[sorted_.item_ids.index("i3")] == "three"
    assert sorted_.starts.tolist() == [0, 3, 6]


def test_a_log_without_items_is_refused() -> None:
    with pytest.raises(BadInput, match="no event with an item"):
        dataset_of([], [])
