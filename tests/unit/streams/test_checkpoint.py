"""The order of a checkpoint, and what a failure at each step leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from faust.types import TP

from interest.errors import ServiceUnavailable
from interest.event import decode_event
from interest.fold import fold
from interest.metrics import NoMetrics
from interest.settings import Settings
from interest.window import WindowLimits
from interest.window_bytes import window_from_bytes
from streams.checkpoint import Checkpoint
from streams.dirty import DirtyUsers
from streams.outbox import Record
from streams.progress import Progress
from tests.unit.streams.fakes import RECORDS, T0, Outbox, Vectors, Windows, event_json

SOURCE = TP("behaviours", 0)


class Consumer:
    def __init__(self) -> None:
        self.commits: list[dict[TP, int]] = []
        self.answer = True

    async def commit_offsets(self, offsets: Mapping[TP, int], generation: int) -> bool:
        assert generation == 1
        if self.answer:
            self.commits.append(dict(offsets))
        return self.answer


class Harness:
    def __init__(self) -> None:
        self.windows, self.dirty, self.progress = Windows(), DirtyUsers(), Progress()
        self.progress.start(1)
        self.outbox, self.vectors, self.consumer = Outbox(), Vectors(), Consumer()
        self.checkpoint = Checkpoint(
            settings=Settings(), records=RECORDS, windows=self.windows, dirty=self.dirty,  # type: ignore[arg-type]
            progress=self.progress, outbox=self.outbox, vectors=self.vectors,  # type: ignore[arg-type]
            metrics=NoMetrics(),
        )  # fmt: skip

    def see(self, event_id: str, offset: int) -> None:
        partition = self.windows.partition(0)
        window = fold(partition.window("u"), [decode_event(event_json(event_id))], WindowLimits())
        partition.replace(window, generation=1)
        self.dirty.mark("u", 0, None)
        self.progress.committed.setdefault(SOURCE, offset)
        self.progress.advanced(SOURCE, offset + 1, self.progress.lap)

    def confirm(self) -> None:
        self.dirty.confirm(self.dirty.take(lambda mark: 1, 9))

    def take(self) -> asyncio.Task[bool]:
        return asyncio.create_task(self.checkpoint.take(self.consumer))  # type: ignore[arg-type]


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_nothing_is_committed_before_the_vectors_are_readable(harness: Harness) -> None:
    harness.see("a", 10)
    taking = harness.take()
    await turns()
    assert [record.topic for record in harness.outbox.sent] == ["windows"]
    assert harness.consumer.commits == []
    harness.confirm()
    assert await asyncio.wait_for(taking, 5)
    assert harness.consumer.commits == [{SOURCE: 11}]
    assert harness.progress.pending() == {}


async def test_the_changelog_record_is_the_window_with_its_token(harness: Harness) -> None:
    harness.see("a", 0)
    harness.confirm()
    await harness.take()
    [record] = harness.outbox.sent
    assert (record.key, record.partition) == (b"u", 0)
    window, generation, _ = window_from_bytes(record.value or b"")
    assert window.content() == harness.windows.partition(0).window("u").content()
    assert generation == 1


async def test_a_changelog_that_fails_commits_nothing_and_is_written_again(
    harness: Harness,
) -> None:
    def fail() -> None:
        raise ServiceUnavailable("away")

    harness.see("a", 0)
    harness.confirm()
    harness.outbox.fail = fail
    with pytest.raises(ServiceUnavailable):
        await harness.take()
    assert harness.consumer.commits == []
    harness.outbox.fail = lambda: None
    harness.see("b", 1)
    harness.confirm()
    assert await harness.take()
    assert len(harness.outbox.sent) == 1
    assert harness.consumer.commits == [{SOURCE: 2}]
    # Counted once, though the window was written at the second try only.
    assert len(harness.vectors.popular[0]) == 1
    fresh = Harness()
    fresh.see("a", 0)
    fresh.see("b", 1)
    fresh.confirm()
    await fresh.take()
    assert fresh.vectors.popular == harness.vectors.popular


async def test_a_commit_that_the_broker_refused_is_not_believed(harness: Harness) -> None:
    harness.see("a", 0)
    harness.confirm()
    harness.consumer.answer = False
    assert not await harness.take()
    assert harness.progress.pending() == {SOURCE: 1}
    harness.consumer.answer = True
    assert await harness.take()
    assert harness.progress.pending() == {}


async def test_what_comes_during_a_checkpoint_waits_for_the_next(harness: Harness) -> None:
    harness.see("a", 0)
    taking = harness.take()
    await turns()
    batch = harness.dirty.take(lambda mark: 1, 9)
    harness.see("b", 1)
    harness.dirty.confirm(batch)
    assert await asyncio.wait_for(taking, 5)
    assert harness.consumer.commits == [{SOURCE: 1}]
    assert "u" in harness.windows.partition(0).changed


async def test_notes_of_another_generation_are_not_kept(harness: Harness) -> None:
    harness.see("a", 0)
    harness.confirm()
    original = harness.consumer.commit_offsets

    async def commit(offsets: Mapping[TP, int], generation: int) -> Any:
        harness.progress.start(2)
        return await original(offsets, generation)

    harness.consumer.commit_offsets = commit  # type: ignore[method-assign]
    await harness.take()
    assert harness.progress.committed == {}


async def test_an_idle_worker_commits_nothing(harness: Harness) -> None:
    assert await harness.take()
    assert harness.consumer.commits == []
    assert harness.outbox.sent == []


async def test_what_another_write_has_under_way_is_waited_for_before_the_commit(
    harness: Harness,
) -> None:
    acknowledged = asyncio.Event()
    original = harness.outbox.send_all

    async def send_all(records: Sequence[Record]) -> None:
        await acknowledged.wait()
        await original(records)

    harness.outbox.send_all = send_all  # type: ignore[method-assign]
    harness.see("a", 0)
    harness.confirm()
    # Forgetting somebody writes the partition, too.
    writing = asyncio.create_task(harness.checkpoint.write(harness.windows.partition(0)))
    await turns()
    taking = harness.take()
    await turns()
    assert harness.consumer.commits == []
    acknowledged.set()
    await asyncio.wait_for(writing, 5)
    assert await asyncio.wait_for(taking, 5)
    assert harness.consumer.commits == [{SOURCE: 1}]


async def test_a_checkpoint_that_waits_for_vectors_holds_no_write_up(harness: Harness) -> None:
    harness.see("a", 0)
    taking = harness.take()
    await turns()
    # A vector that a marker refused is settled only once the marker is written.
    await asyncio.wait_for(harness.checkpoint.write(harness.windows.partition(0)), 5)
    harness.confirm()
    assert await asyncio.wait_for(taking, 5)


async def test_what_changes_while_it_is_written_is_counted_once(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.checkpoint._SLICE", 1)
    partition = harness.windows.partition(0)

    def see(user: str, n: int) -> None:
        event = decode_event(event_json(f"e{n}", user, ts=T0 + n))
        window = fold(partition.window(user), [event], WindowLimits(max_events=1))
        partition.replace(window, generation=1)

    original = harness.outbox.send_all

    async def send_all(records: Sequence[Record]) -> None:
        if records[0].key == b"a" and len(harness.outbox.sent) < 2:
            see("b", 2)
            partition.remove("c")
        await original(records)

    see("a", 1)
    see("b", 1)
    see("c", 1)
    await harness.take()
    harness.outbox.send_all = send_all  # type: ignore[method-assign]
    harness.outbox.sent.clear()
    see("a", 2)
    see("b", 3)
    see("c", 2)
    await harness.take()
    see("b", 4)
    see("c", 5)
    await harness.take()
    fresh = Harness()
    for held in partition.held.values():
        fresh.windows.partition(0).restore(held)
    assert partition.popular.top(9, 7) == fresh.windows.partition(0).popular.top(9, 7)
