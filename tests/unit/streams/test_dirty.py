"""Dirty users: once each, oldest first, settled only when their vectors are readable."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streams.dirty import DirtyUsers, Mark
from streams.encode_cap import EncodeCap


def take_all(dirty: DirtyUsers) -> list[Mark]:
    return dirty.take(lambda mark: 1, 1_000)


def test_a_user_waits_once_and_for_the_oldest_event() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, 100)
    dirty.mark("b", 0, 200)
    dirty.mark("a", 0, 300)
    assert [(m.subject_id, m.since_ms) for m in take_all(dirty)] == [("a", 100), ("b", 200)]


def test_a_record_gives_its_time_to_a_mark_without_one() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, None)
    dirty.mark("a", 0, 300)
    assert take_all(dirty)[0].since_ms == 300


def test_a_batch_ends_at_the_budget_but_holds_at_least_one() -> None:
    dirty = DirtyUsers()
    for user in "abc":
        dirty.mark(user, 0, None)
    assert [m.subject_id for m in dirty.take(lambda mark: 50, 10)] == ["a"]
    assert [m.subject_id for m in dirty.take(lambda mark: 5, 10)] == ["b", "c"]


def test_a_user_in_flight_is_not_taken_again() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, None)
    first = take_all(dirty)
    dirty.mark("a", 0, None)
    assert take_all(dirty) == []
    dirty.confirm(first)
    assert [m.subject_id for m in take_all(dirty)] == ["a"]


async def test_settled_waits_for_the_marks_before_and_for_no_later_one() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, None)
    waiting = asyncio.create_task(dirty.settled(dirty.last_seq))
    batch = take_all(dirty)
    dirty.mark("b", 0, None)
    await asyncio.sleep(0)
    assert not waiting.done()
    dirty.confirm(batch)
    await asyncio.wait_for(waiting, 1)


async def test_what_was_put_back_still_holds_the_checkpoint() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, None)
    seq = dirty.last_seq
    batch = take_all(dirty)
    dirty.mark("a", 0, None)
    dirty.put_back(batch)
    waiting = asyncio.create_task(dirty.settled(seq))
    await asyncio.sleep(0)
    assert not waiting.done()
    dirty.confirm(take_all(dirty))
    await asyncio.wait_for(waiting, 1)


async def test_a_dropped_partition_holds_nothing() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, None)
    dirty.mark("b", 1, None)
    seq = dirty.last_seq
    first = dirty.take(lambda mark: 1, 1)
    dirty.drop_partition(0)
    dirty.confirm(first)
    dirty.drop_partition(1)
    await asyncio.wait_for(dirty.settled(seq), 1)
    assert len(dirty) == 0


class DirtyMachine(RuleBasedStateMachine):
    """Whatever the order of calls, no mark is lost and none is doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.dirty = DirtyUsers()
        self.unconfirmed: dict[str, int] = {}
        self.flying: list[Mark] = []
        self.held_back: set[int] = set()

    @rule(partition=st.sampled_from([0, 1]))
    def hold_back(self, partition: int) -> None:
        self.dirty.hold_back(partition)
        self.held_back.add(partition)

    @rule(partition=st.sampled_from([0, 1]))
    def release(self, partition: int) -> None:
        self.dirty.release(partition)
        self.held_back.discard(partition)

    @rule(partition=st.sampled_from([0, 1]))
    def drop_partition(self, partition: int) -> None:
        self.dirty.drop_partition(partition)
        self.held_back.discard(partition)
        self.flying = [mark for mark in self.flying if mark.partition != partition]
        self.unconfirmed = {
            user: seq for user, seq in self.unconfirmed.items() if ord(user) % 2 != partition
        }

    @rule(user=st.sampled_from("abcdef"))
    def mark(self, user: str) -> None:
        self.dirty.mark(user, ord(user) % 2, None)
        self.unconfirmed[user] = self.dirty.last_seq

    @rule(budget=st.integers(1, 4))
    def take(self, budget: int) -> None:
        self.flying += self.dirty.take(lambda mark: 1, budget)

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        done = data.draw(st.lists(st.sampled_from(self.flying), unique=True)) if self.flying else []
        self.dirty.confirm(done)
        self.flying = [mark for mark in self.flying if mark not in done]

    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        done = data.draw(st.lists(st.sampled_from(self.flying), unique=True)) if self.flying else []
        self.dirty.put_back(done)
        self.flying = [mark for mark in self.flying if mark not in done]

    @invariant()
    def a_user_flies_once(self) -> None:
        subjects = [mark.subject_id for mark in self.flying]
        assert len(subjects) == len(set(subjects))

    @invariant()
    def the_lowest_is_the_lowest(self) -> None:
        marks = [*self.waiting(), *self.dirty._in_flight.values()]
        lowest = min((mark.seq for mark in marks), default=self.dirty.last_seq + 1)
        assert self.dirty._lowest() == lowest
        assert len(self.dirty) == len(marks)

    @invariant()
    def the_oldest_who_may_be_taken_is_found(self) -> None:
        flying = {mark.subject_id for mark in self.flying}
        free = [
            mark
            for mark in self.waiting()
            if mark.subject_id not in flying and mark.partition not in self.held_back
        ]
        assert self.dirty.first() == min(free, key=lambda mark: mark.seq, default=None)

    def waiting(self) -> list[Mark]:
        return [mark for marks in self.dirty._waiting.values() for mark in marks.values()]

    def teardown(self) -> None:
        self.dirty.put_back(self.flying)
        left = {mark.subject_id for mark in self.waiting()}
        confirmed_since = set(self.unconfirmed) - left
        # Whoever is gone was confirmed after the last mark, never before.
        for user in confirmed_since:
            assert all(mark.subject_id != user for mark in self.flying)


TestDirtyMachine = DirtyMachine.TestCase
TestDirtyMachine.settings = settings(max_examples=100, deadline=None)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def encode_all(dirty: DirtyUsers, user: str, n: int) -> int:
    """Mark and encode a user until told to rest, at most ``n`` times; tell how often it went."""
    for i in range(n):
        dirty.mark(user, 0, i)
        batch = take_all(dirty)
        if not batch:
            return i
        dirty.confirm(batch)
    return n


def test_a_user_has_a_burst_and_then_the_rate_and_what_it_saves_is_counted() -> None:
    clock = Clock()
    dirty = DirtyUsers(EncodeCap(per_s=2.0, monotonic=clock))
    assert encode_all(dirty, "hot", 99) == 7  # three seconds' worth, and the one that was due
    for since_ms in (2, 3):
        dirty.mark("hot", 0, since_ms)
    dirty.mark("cool", 0, 5)
    assert [m.subject_id for m in take_all(dirty)] == ["cool"]
    assert dirty.n_suppressed == 2  # one waits, the others share its encode
    clock.now += 0.5
    assert [m.subject_id for m in take_all(dirty)] == ["hot"]
    clock.now += 60
    assert encode_all(dirty, "other", 99) == 7


def test_an_encode_that_failed_does_not_count() -> None:
    clock = Clock()
    dirty = DirtyUsers(EncodeCap(per_s=2.0, monotonic=clock))
    dirty.mark("hot", 0, 1)
    for _ in range(50):
        dirty.put_back(take_all(dirty))
    assert len(take_all(dirty)) == 1


def test_users_who_are_quiet_are_not_remembered() -> None:
    clock = Clock()
    cap = EncodeCap(per_s=2.0, monotonic=clock)
    for i in range(100):
        cap.spend(str(i))
    clock.now += 10
    cap.spend("last")
    assert set(cap._paid) == {"last"}


async def test_waiting_ends_when_a_rest_does() -> None:
    dirty = DirtyUsers(EncodeCap(per_s=50.0))
    encode_all(dirty, "hot", 999)
    await asyncio.wait_for(dirty.wait(), 5)
    assert [m.subject_id for m in take_all(dirty)] == ["hot"]


async def test_nobody_waits_for_users_who_are_in_flight() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, None)
    batch = take_all(dirty)
    dirty.mark("a", 0, None)
    waiting = asyncio.create_task(dirty.wait())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    dirty.confirm(batch)
    await asyncio.wait_for(waiting, 5)


def test_a_partition_that_is_caught_up_keeps_its_marks_apart_and_holds_the_checkpoint() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, 1)
    dirty.mark("b", 1, 2)
    dirty.hold_back(0)
    dirty.mark("c", 0, 3)
    dirty.mark("a", 0, 4)
    dirty.confirm(take_all(dirty))
    assert len(dirty) == 2
    assert dirty._lowest() == 1
    dirty.mark("d", 1, 5)
    dirty.release(0)
    assert [(m.subject_id, m.since_ms) for m in take_all(dirty)] == [("a", 1), ("c", 3), ("d", 5)]


def test_a_revoked_partition_takes_what_was_held_back_along() -> None:
    dirty = DirtyUsers()
    dirty.hold_back(0)
    dirty.mark("a", 0, None)
    assert "a" in dirty
    dirty.drop_partition(0)
    assert "a" not in dirty
    dirty.mark("a", 0, None)
    assert [m.subject_id for m in take_all(dirty)] == ["a"]


def test_what_was_put_back_while_its_partition_is_held_back_waits_in_its_old_place() -> None:
    dirty = DirtyUsers()
    for i in range(10):
        dirty.mark(f"u{i}", 0, None)
    batch = take_all(dirty)
    dirty.hold_back(0)  # assigned anew while the store is away
    for i in range(10, 20):
        dirty.mark(f"u{i}", 0, None)
    dirty.put_back(batch)
    assert take_all(dirty) == []
    dirty.release(0)
    assert [m.subject_id for m in take_all(dirty)] == [f"u{i}" for i in range(20)]


def test_batches_that_fail_out_of_order_wait_in_order() -> None:
    dirty = DirtyUsers()
    for user in "abcd":
        dirty.mark(user, 0, None)
    first, second = dirty.take(lambda mark: 1, 2), dirty.take(lambda mark: 1, 2)
    dirty.put_back(first)
    dirty.put_back(second)
    assert [m.subject_id for m in take_all(dirty)] == list("abcd")


def test_an_older_mark_without_a_time_takes_that_of_the_newer() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, None)
    batch = take_all(dirty)
    dirty.mark("a", 0, 300)
    dirty.put_back(batch)
    assert [(m.seq, m.since_ms) for m in take_all(dirty)] == [(1, 300)]


def test_a_mark_that_was_dropped_is_not_in_flight_any_more() -> None:
    dirty = DirtyUsers()
    dirty.mark("a", 0, None)
    [mark] = take_all(dirty)
    assert dirty.is_in_flight(mark)
    dirty.drop_partition(0)
    dirty.mark("a", 0, None)
    [again] = take_all(dirty)
    assert not dirty.is_in_flight(mark)
    dirty.confirm([mark])
    assert dirty.is_in_flight(again)


class Counted(dict[str, Mark]):
    """Marks that count how many of them are looked at."""

    n_seen = 0

    def __iter__(self) -> Iterator[str]:
        for key in super().__iter__():
            type(self).n_seen += 1
            yield key

    def values(self) -> Any:
        type(self).n_seen += len(self)
        return super().values()


@pytest.mark.parametrize("n", [100, 10_000])
def test_a_batch_costs_the_same_however_many_wait(n: int) -> None:
    dirty = DirtyUsers(EncodeCap(per_s=1_000.0))
    dirty._waiting = defaultdict(Counted)
    Counted.n_seen = 0
    for i in range(n):
        dirty.mark(f"u{i}", i % 4, None)
    n_asked = 0

    def cost(mark: Mark) -> int:
        nonlocal n_asked
        n_asked += 1
        return 1

    for _ in range(10):
        batch = dirty.take(cost, 5)
        dirty.mark(batch[0].subject_id, batch[0].partition, None)
        dirty.put_back(batch[:2])
        dirty.confirm(batch[2:])
    assert Counted.n_seen == 0
    assert n_asked == 10 * 6
    assert len(dirty) == n - 10 * 3
