"""What live quality is: targets, ranks, gains and the sample, each by itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from interest.encoded_items import EncodedItems
from interest.event import Event, EventType
from interest.fold import fold, window_of
from interest.item import EncodedItem, Item, unit
from interest.quality import ItemSample, SampledItems, Target, gain, is_chosen, rank, targets
from interest.window import BehaviourWindow, WindowLimits

T0 = 1_700_000_000_000
LIMITS = WindowLimits(max_events=3)


def event(number: int, item: str | None = "mug", **fields: Any) -> Event:
    values: dict[str, Any] = {"type": EventType.CLICK, "ts": T0 + number, **fields}
    return Event(event_id=f"e{number}", user_id="u", item_id=item, **values)


class Pointing:
    """A user encoder whose vector is that of the newest known item."""

    dim = 2

    def n_tokens(self, window: BehaviourWindow) -> int:
        return len(window)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        rows = np.zeros((len(windows), 2), np.float32)
        for row, window in zip(rows, windows, strict=True):
            known = [e.item_id for e in window.events if e.item_id in items]
            if known:
                row[:] = items[str(known[-1])].vector
        return rows


def circle(n: int) -> EncodedItems:
    """Items i0, i1, … each farther from i0 than the one before."""
    angles = np.arange(n) / n * math.pi
    rows = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    return EncodedItems([Item(item_id=f"i{i}", title="t") for i in range(n)], rows)


def asked(window: BehaviourWindow, *events: Event) -> list[str | None]:
    found = targets(window, events, LIMITS, 2.0)
    return [None if target is None else target.item_id for target in found]


@pytest.mark.parametrize(
    ("fields", "is_target"),
    [
        ({}, True),
        ({"type": EventType.PURCHASE}, True),
        ({"rating": 2.5, "type": EventType.REVIEW}, True),
        ({"rating": 2.0, "type": EventType.REVIEW}, False),
        ({"type": EventType.REMOVE}, False),
        ({"type": EventType.RETURN}, False),
        ({"type": EventType.SEARCH}, False),
        ({"type": EventType.SEARCH, "item": None, "text": "mug"}, False),
        (
            {"type": EventType.IMPRESSION, "request_id": "r", "position": 0, "model_id": "m"},
            False,
        ),
    ],
)
def test_what_is_done_out_of_interest_in_an_item_is_a_target(
    fields: dict[str, Any], is_target: bool
) -> None:
    assert asked(BehaviourWindow("u"), event(1, **fields)) == ["mug" if is_target else None]


def test_doubles_corrections_and_what_does_not_enter_the_window_are_no_targets() -> None:
    window = window_of("u", [event(1), event(2), event(3)], LIMITS)
    corrected = event(2, ts=T0 + 9)
    assert asked(window, event(3), corrected, event(0), event(4, "cup")) == [
        None, None, None, "cup",
    ]  # fmt: skip


@given(st.lists(st.integers(0, 12), max_size=30), st.sets(st.integers(0, 30)))
def test_however_events_are_grouped_each_meets_the_window_just_before_it(
    numbers: list[int], cuts: set[int]
) -> None:
    events = [event(n, f"i{n % 5}") for n in numbers]
    alone: list[Target | None] = []
    window = BehaviourWindow("u")
    for one in events:
        alone += targets(window, [one], LIMITS, 2.0)
        window = fold(window, [one], LIMITS)
    grouped: list[Target | None] = []
    window = BehaviourWindow("u")
    edges = [0, *sorted(cut for cut in cuts if cut < len(events)), len(events)]
    for first, last in itertools.pairwise(edges):
        grouped += targets(window, events[first:last], LIMITS, 2.0)
        window = fold(window, events[first:last], LIMITS)
    assert [t and (t.window.content(), t.item_id, t.is_repeated) for t in grouped] == [
        t and (t.window.content(), t.item_id, t.is_repeated) for t in alone
    ]


def test_the_rank_is_the_number_of_sampled_items_that_lie_nearer() -> None:
    items = circle(8)
    sample = SampledItems.of(items)
    window = window_of("u", [event(1, "i0")])
    ranks = [rank(Target(window, f"i{i}"), Pointing(), items, sample) for i in range(8)]
    assert ranks == list(range(8))


def test_ties_count_half_and_the_target_is_not_ranked_against_itself() -> None:
    titles = [Item(item_id=name, title="t") for name in ("a", "b", "c", "far")]
    vectors = unit(np.array([[1, 0], [1, 1e-9], [1, 0], [0, 1]]))
    items = EncodedItems(titles, vectors)
    target = Target(window_of("u", [event(1, "a")]), "b")
    assert rank(target, Pointing(), items, SampledItems.of(items)) == 1.0
    outside = SampledItems(["a", "c", "far"], vectors[[0, 2, 3]].astype(np.float64))
    assert rank(target, Pointing(), items, outside) == 1.0


def test_who_has_no_direction_and_an_item_without_a_vector_are_passed_over() -> None:
    items = circle(3)
    sample = SampledItems.of(items)
    nobody = BehaviourWindow("u")
    stranger = window_of("u", [event(1, "never-heard-of")])
    known = window_of("u", [event(1, "i0")])
    assert rank(Target(nobody, "i1"), Pointing(), items, sample) == "cold"
    assert rank(Target(stranger, "i1"), Pointing(), items, sample) == "cold"
    assert rank(Target(known, "i9"), Pointing(), items, sample) == "unknown_item"
    empty = SampledItems.of(EncodedItems.stacked(()))
    assert rank(Target(known, "i1"), Pointing(), items, empty) == "unknown_item"


def test_gains_are_those_of_ndcg_and_their_sum_does_not_depend_on_the_order() -> None:
    ranks = [0, 0.5, 1, 3.5, 9, 9.5, 10, 700]
    gains = [gain(r) for r in ranks]
    expected = [1 / math.log2(r + 2) if r < 10 else 0 for r in ranks]
    assert gains == pytest.approx(expected, abs=1e-6)
    assert gain(0) == 1.0
    many = [gain(r / 2) for r in range(20)] * 100
    assert sum(many) == sum(reversed(many)) == sum(sorted(many))


def test_a_share_of_the_users_is_chosen_the_same_wherever_it_is_asked() -> None:
    users = [f"user-{i}" for i in range(4_000)]
    assert not any(is_chosen(user, 0) for user in users)
    assert all(is_chosen(user, 1) for user in users)
    few, more = ({u for u in users if is_chosen(u, share)} for share in (0.1, 0.3))
    assert few < more
    assert 300 < len(few) < 500


@given(
    st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 60), min_size=1)), max_size=12),
)
def test_the_sample_depends_on_the_catalogue_alone(
    changes: list[tuple[bool, set[int]]],
) -> None:
    sample, known = ItemSample(5), set[str]()
    for is_put, numbers in changes:
        ids = {f"i{n}" for n in numbers}
        before, version = sample.ids, sample.version
        if is_put:
            known |= ids
            sample.put(sorted(ids))
        else:
            known -= ids
            sample.remove(sorted(ids), known)
        fresh = ItemSample(5)
        fresh.put(sorted(known, reverse=True))
        assert sample.ids == fresh.ids
        assert len(sample.ids) == min(5, len(known))
        assert set(sample.ids) <= known
        if sample.ids != before or (is_put and ids & set(before)):
            assert sample.version != version


def test_a_catalogue_that_grows_changes_little_of_the_sample() -> None:
    sample = ItemSample(100)
    sample.put(f"i{n}" for n in range(1_000))
    before = set(sample.ids)
    sample.put(f"i{n}" for n in range(1_000, 1_100))
    assert len(before & set(sample.ids)) >= 80
