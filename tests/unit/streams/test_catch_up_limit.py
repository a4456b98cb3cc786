"""Reading again is waited for, but not at any price: the exceptions that the guarantees name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from faust.types import TP

from streams.consumer_thread import SourceOffsets
from tests.unit.streams.test_assignment import SOURCE, Consumer, Harness


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr("streams.assignment._LOOK_S", 0)
    return Harness()


async def test_fresh_events_matter_more_once_the_limit_is_over(harness: Harness) -> None:
    harness.assignment._catch_up_s = 0
    settling = harness.assigned()
    harness.dirty.mark("u", 0, None)
    harness.progress.advanced(SOURCE, 9, 1)
    await asyncio.wait_for(settling, 5)
    assert await harness.taken() == ["u"]


async def test_without_a_broker_nothing_is_written_until_it_says_who_owns_the_partition(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, ask = 0, Consumer.source_offsets

    async def slow(self: Consumer, tps: Iterable[TP]) -> dict[TP, SourceOffsets]:
        nonlocal answers
        answers += 1
        if answers < 4:
            raise KafkaTimeoutError("no answer")
        return await ask(self, tps)

    monkeypatch.setattr("streams.assignment._CONFIRMED_S", 0)
    monkeypatch.setattr(Consumer, "source_offsets", slow)
    settling = harness.assigned()
    harness.dirty.mark("u", 0, None)
    await asyncio.wait_for(settling, 5)
    assert answers == 4
    assert await harness.taken() == ["u"]


async def test_who_slept_through_the_limit_asks_the_broker_before_writing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was stopped has read half, and may have lost the group meanwhile."""
    asked = asyncio.Event()

    async def refuse(*args: Any) -> bool:
        asked.set()
        return False

    monkeypatch.setattr("streams.assignment._CONFIRMED_S", 0)
    monkeypatch.setattr(Consumer, "commit_offsets", refuse)
    harness.assignment._catch_up_s = 0
    settling = harness.assigned()
    harness.dirty.mark("u", 0, None)
    await asyncio.wait_for(asked.wait(), 5)
    assert await harness.taken() == []
    assert not settling.done()
    # The rebalance takes the partition: nothing of it is written here.
    del harness.windows.partitions[0]
    harness.dirty.drop_partition(0)
    harness.progress.start(2)
    await asyncio.wait_for(settling, 5)
    assert await harness.taken() == []
