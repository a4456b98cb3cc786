"""Reading again is waited for, but not at any price: the exceptions that the guarantees name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError

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


async def test_a_broker_that_does_not_answer_holds_no_vectors_back(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*args: Any) -> Any:
        raise KafkaTimeoutError("no answer")

    monkeypatch.setattr(Consumer, "source_offsets", silent)
    settling = harness.assigned()
    harness.dirty.mark("u", 0, None)
    await asyncio.wait_for(settling, 5)
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
