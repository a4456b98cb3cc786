"""The table's storage across assignments: what is being recovered is nobody's yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from interest.event import decode_event
from interest.fold import fold
from interest.forgetting import subject_hash
from interest.window import BehaviourWindow, WindowLimits, touch
from streams.partitions import Partition
from streams.window_records import Held
from streams.windows import WindowStore
from tests.unit.streams.fakes import RECORDS, T0, KafkaRecord, chunk, event_json

CHANGELOG = TP("windows", 0)
OTHER = TP("windows", 1)


def window(n: int) -> BehaviourWindow:
    events = [decode_event(event_json(f"e{i}")) for i in range(n)]
    folded = fold(BehaviourWindow("u"), events, WindowLimits())
    for _ in range(n - 1):
        folded = touch(folded)
    return folded


class Group:
    """What Faust calls, in its order."""

    def __init__(self) -> None:
        topic = SimpleNamespace(get_topic_name=lambda: "windows")
        table: Any = SimpleNamespace(changelog_topic=topic, name="windows")
        #: Changelog partitions that Faust was told to read from their beginning.
        self.read_anew: list[TP] = []
        self.recovery = SimpleNamespace(
            revoke=self.read_anew.append, signal_recovery_start=asyncio.Event(), _generation_id=0
        )
        app: Any = SimpleNamespace(tables=SimpleNamespace(recovery=self.recovery))
        self.store = WindowStore("windows://", app, table, table_name="windows")
        self.store.records = RECORDS
        self.store.hash_of = partial(subject_hash, "")
        self.announced: list[list[int]] = []
        self.store.on_recovered = self._on_recovered
        self.assigned: set[TP] = set()
        self.generation = 0

    def _on_recovered(self, partitions: Iterable[Partition]) -> None:
        self.announced.append([partition.number for partition in partitions])

    async def assign(self, *tps: TP, missed: int = 0) -> None:
        assigned, before = set(tps), self.assigned
        self.assigned, self.generation = assigned, self.generation + 1 + missed
        await self.store.on_rebalance(
            assigned, before - assigned, assigned - before, self.generation
        )
        self.recovery._generation_id = self.generation
        self.recovery.signal_recovery_start.set()

    def read(self, tp: TP, *entries: Held) -> None:
        records: list[KafkaRecord] = []
        for i, held in enumerate(entries):
            made = RECORDS.window(tp.partition, held)
            records.append(KafkaRecord(tp.topic, tp.partition, i, made.key, made.value, T0))
        message = SimpleNamespace(message=SimpleNamespace(value=chunk(records)))
        self.store.apply_changelog_batch([message], lambda k: k, lambda v: v)  # type: ignore[list-item]

    async def complete(self, *tps: TP) -> None:
        """Complete the recovery of the last assignment."""
        self.recovery.signal_recovery_start.clear()
        await self.complete_the_one_before(*tps)

    async def complete_the_one_before(self, *tps: TP) -> None:
        """Complete a recovery that began before the last assignment, which it knows already."""
        await self.store.on_recovery_completed(set(tps), set())


@pytest.fixture
def group() -> Group:
    return Group()


async def test_a_window_of_which_older_records_are_read_is_not_to_be_changed(group: Group) -> None:
    await group.assign(CHANGELOG)
    group.read(CHANGELOG, Held(window(1), 1))
    # Holders of a changed item, idle users and a rebuild go through these.
    for partition in group.store.partitions.values():
        partition.replace(touch(partition.window("u")), generation=7)
    group.read(CHANGELOG, Held(window(3), 2))
    await group.complete(CHANGELOG)
    assert len(group.store.partitions[0].window("u")) == 3
    assert group.announced == [[0]]
    assert group.store.n_restored == 2, "a watchdog must see that a long recovery goes on"


async def test_a_chunk_of_a_revoked_partition_does_not_bring_it_back(group: Group) -> None:
    await group.assign(CHANGELOG, OTHER)
    await group.assign(CHANGELOG)
    # Faust flushes what it had buffered when the next recovery starts.
    group.read(OTHER, Held(window(2), 1))
    await group.complete(CHANGELOG)
    assert set(group.store.partitions) == {0}
    assert group.announced == [[0]]


async def test_a_recovery_of_the_assignment_before_announces_nothing(group: Group) -> None:
    await group.assign(CHANGELOG)
    group.read(CHANGELOG, Held(window(1), 1))
    await group.assign(CHANGELOG, OTHER)
    # Faust has put the partitions of the next assignment in the place of its own.
    await group.complete_the_one_before(CHANGELOG, OTHER)
    assert group.announced == []
    assert group.store.partitions == {}, "half read, a window must not be claimed"
    group.read(OTHER, Held(window(2), 1))
    await group.complete(CHANGELOG, OTHER)
    assert group.announced == [[0, 1]]


async def test_a_recovery_that_the_next_assignment_is_yet_to_reach_announces_nothing(
    group: Group,
) -> None:
    """Faust tells the tables first, and its recovery only if no further rebalance has begun."""
    await group.assign(CHANGELOG)
    group.recovery._generation_id = 0
    await group.complete(CHANGELOG)
    assert group.announced == []


async def test_a_partition_that_stays_keeps_its_windows_when_it_is_read_again(
    group: Group,
) -> None:
    await group.assign(CHANGELOG)
    group.read(CHANGELOG, Held(window(1), 1))
    await group.complete(CHANGELOG)
    kept = group.store.partitions[0]
    kept.replace(window(3), generation=1)
    await group.assign(CHANGELOG, OTHER)
    group.read(CHANGELOG, Held(window(2), 1))
    await group.complete(CHANGELOG, OTHER)
    assert group.store.partitions[0] is kept
    assert len(kept.window("u")) == 3
    assert group.announced == [[0], [0, 1]]


async def test_an_empty_changelog_is_recovered_as_well(group: Group) -> None:
    await group.assign(CHANGELOG)
    await group.complete(CHANGELOG)
    assert group.announced == [[0]]
    assert set(group.store.partitions) == {0}


async def test_a_partition_kept_across_a_generation_that_was_missed_is_recovered_anew(
    group: Group,
) -> None:
    """A worker that was stopped meanwhile: others may have owned it and given it back."""
    await group.assign(CHANGELOG, OTHER)
    group.read(CHANGELOG, Held(window(1), 1))
    await group.complete(CHANGELOG, OTHER)
    dropped: list[int] = []
    group.store.on_dropped = dropped.append
    await group.assign(CHANGELOG, missed=1)
    assert sorted(dropped) == [0, 1]
    assert group.read_anew == [CHANGELOG]
    assert group.store.partitions == {}
    group.read(CHANGELOG, Held(window(1), 1), Held(window(3), 2))
    await group.complete(CHANGELOG)
    assert group.announced[-1] == [0]
    assert len(group.store.partitions[0].window("u")) == 3


async def test_a_partition_kept_in_the_next_generation_stays_as_it_is(
    group: Group,
) -> None:
    await group.assign(CHANGELOG)
    group.read(CHANGELOG, Held(window(1), 1))
    await group.complete(CHANGELOG)
    kept = group.store.partitions[0]
    await group.assign(CHANGELOG, OTHER)
    assert group.store.partitions[0] is kept
    assert group.read_anew == []
