"""When the vectors of a newly assigned partition may be written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from faust.types import TP

from interest.metrics import NoMetrics
from interest.vector import Token
from streams.assignment import Assignment
from streams.consumer_thread import SourceOffsets
from streams.dirty import DirtyUsers, Mark
from streams.ownership import Ownership
from streams.progress import Progress
from streams.window_records import ERA_KEY, Tombstone
from tests.unit.streams.fakes import RECORDS, Outbox, Vectors, Windows

SOURCE = TP("behaviours", 0)


class Consumer:
    """Says what the broker holds, and whether this worker is still in the group."""

    owns = True

    def assignment(self) -> set[TP]:
        return {SOURCE}

    def _is_changelog_tp(self, tp: TP) -> bool:
        return False

    async def commit_offsets(self, offsets: Mapping[TP, int], generation: int) -> bool:
        return self.owns

    async def source_offsets(self, tps: Iterable[TP]) -> dict[TP, SourceOffsets]:
        return {tp: SourceOffsets(0, 10, 4, True) for tp in tps}

    def fetched_end(self, tp: TP) -> int | None:
        return 10

    def known_end(self, tp: TP, told: int) -> int:
        return max(10, told)


class NothingToReport:
    async def check(self, *args: Any) -> list[TP]:
        return []


class Harness:
    def __init__(self) -> None:
        self.windows, self.dirty, self.progress = Windows(), DirtyUsers(), Progress()
        self.vectors = Vectors()
        self.outbox = Outbox()
        ownership = Ownership(
            model_id="m", records=RECORDS, windows=self.windows, dirty=self.dirty,  # type: ignore[arg-type]
            progress=self.progress, vectors=self.vectors, outbox=self.outbox,  # type: ignore[arg-type]
        )  # fmt: skip
        self.assignment = Assignment(
            topics=["behaviours"], check=NothingToReport(), catch_up_s=60, windows=self.windows,  # type: ignore[arg-type]
            dirty=self.dirty, progress=self.progress, ownership=ownership, known_items={},
            metrics=NoMetrics(),
        )  # fmt: skip
        self.progress.start(1)
        self.progress.seek(1, {})
        self.partition = self.windows.partition(0)

    def assigned(self) -> asyncio.Task[None]:
        self.assignment.hold_back([self.partition])
        consumer: Any = Consumer()
        return asyncio.create_task(self.assignment.settle([self.partition], consumer))

    async def taken(self) -> list[str]:
        for _ in range(50):
            await asyncio.sleep(0)
        return [mark.subject_id for mark in self.dirty.take(lambda mark: 1, 9)]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr("streams.assignment._LOOK_S", 0)
    return Harness()


async def test_marks_wait_until_the_sources_are_read_again(harness: Harness) -> None:
    settling = harness.assigned()
    harness.dirty.mark("u", 0, None)
    harness.progress.advanced(SOURCE, 9, 1)
    assert await harness.taken() == []
    harness.progress.advanced(SOURCE, 10, 1)
    await asyncio.wait_for(settling, 5)
    assert await harness.taken() == ["u"]


async def test_a_rebalance_that_leaves_the_partition_here_releases_nothing_early(
    harness: Harness,
) -> None:
    settling = harness.assigned()
    harness.dirty.mark("u", 0, None)
    harness.progress.advanced(SOURCE, 9, 1)
    assert await harness.taken() == []
    harness.progress.start(2)  # what was read is read once more, from the commit
    harness.progress.seek(2, {})
    harness.progress.advanced(SOURCE, 5, 2)
    assert await harness.taken() == []
    harness.progress.advanced(SOURCE, 10, 2)
    await asyncio.wait_for(settling, 5)
    assert await harness.taken() == ["u"]


async def test_an_era_that_has_risen_is_in_the_changelog_before_any_vector(
    harness: Harness,
) -> None:
    harness.partition.restore(Tombstone(b"another", Token(4, 1, 9)))
    harness.partition.recovered(1)
    taken_at_the_send: list[Mark] = []
    harness.outbox.fail = lambda: taken_at_the_send.extend(harness.dirty.take(lambda mark: 1, 9))
    settling = harness.assigned()
    harness.dirty.mark("u", 0, None)
    harness.progress.advanced(SOURCE, 10, 1)
    await asyncio.wait_for(settling, 5)
    [record] = harness.outbox.sent
    assert record == RECORDS.tombstone(0, Tombstone(ERA_KEY, Token(5, 1, 0)))
    assert taken_at_the_send == []
    assert await harness.taken() == ["u"]
    assert harness.partition.risen is None


async def test_a_partition_that_was_revoked_is_not_waited_for(harness: Harness) -> None:
    settling = harness.assigned()
    assert await harness.taken() == []
    del harness.windows.partitions[0]
    await asyncio.wait_for(settling, 5)


async def test_what_can_be_read_no_further_is_not_waited_for(harness: Harness) -> None:
    settling = harness.assigned()
    harness.dirty.mark("u", 0, None)
    harness.progress.committed[SOURCE] = 0
    harness.progress.advanced(SOURCE, 9, 1)
    assert await harness.taken() == []
    # As many records as may be uncommitted are read; a commit needs the vectors of these.
    agent = asyncio.create_task(harness.progress.room(5, 1))
    await asyncio.wait_for(settling, 5)
    assert await harness.taken() == ["u"]
    harness.progress.confirm({SOURCE: 9}, 1)
    await asyncio.wait_for(agent, 5)
    assert not harness.progress.full
