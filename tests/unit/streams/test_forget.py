"""Carrying out requests to forget, whatever is away."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from faust.types import TP

from interest.errors import ServiceUnavailable
from interest.event import decode_event
from interest.fold import fold
from interest.metrics import NoMetrics
from interest.settings import Settings
from interest.window import WindowLimits
from streams.change_feed import ChangeFeed
from streams.checkpoint import Checkpoint
from streams.dirty import DirtyUsers
from streams.forget import Forgetting
from streams.progress import Progress
from streams.topics import TopicNames
from tests.unit.streams.fakes import (
    RECORDS,
    T0,
    KafkaRecord,
    Outbox,
    Vectors,
    Windows,
    chunk,
    event_json,
    sought,
)

REQUESTS = TP("forget", 0)


class Harness:
    def __init__(self) -> None:
        self.windows, self.dirty, self.progress = Windows(), DirtyUsers(), Progress()
        self.progress.start(1)
        self.outbox, self.vectors = Outbox(), Vectors()
        self.readings: list[set[str]] = []
        self.n_failures = 0
        checkpoint = Checkpoint(
            settings=Settings(), records=RECORDS, windows=self.windows, dirty=self.dirty,  # type: ignore[arg-type]
            progress=self.progress, outbox=self.outbox, vectors=self.vectors,  # type: ignore[arg-type]
            metrics=NoMetrics(),
        )  # fmt: skip
        self.forgetting = Forgetting(
            names=TopicNames.of(Settings()), n_partitions=1, pseudonym=lambda user: f"~{user}",
            windows=self.windows, dirty=self.dirty, progress=self.progress,  # type: ignore[arg-type]
            checkpoint=checkpoint, vectors=self.vectors,
            feed=ChangeFeed(self.outbox, "user-vectors", lease_s=60, aligned=True),  # type: ignore[arg-type]
            outbox=self.outbox, remove_letters=self._remove_letters, clock=lambda: T0,  # type: ignore[arg-type]
            metrics=NoMetrics(),
        )  # fmt: skip

    async def _remove_letters(self, ids: Collection[str]) -> None:
        self.readings.append(set(ids))
        if len(self.readings) <= self.n_failures:
            raise ServiceUnavailable("the broker went away")

    async def request(self, *users: str) -> None:
        records = [
            KafkaRecord("forget", 0, i, None, b'{"user_id": "%s"}' % user.encode(), T0)
            for i, user in enumerate(users)
        ]
        await self.forgetting.handle(sought(self.progress, chunk(records)))
        running = asyncio.create_task(self.forgetting.run())
        while self.forgetting.pending and not running.done():
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr("streams.forget.backoff_s", lambda attempt: 0)
    return Harness()


async def test_many_requests_share_a_reading_of_the_dead_letters(harness: Harness) -> None:
    users = [f"u{i}" for i in range(100)]
    await harness.request(*users)
    assert len(harness.vectors.markers) == 100
    assert len(harness.readings) == 2
    assert set().union(*harness.readings) == {*users, *(f"~{user}" for user in users)}
    assert harness.progress.positions == {REQUESTS: 100}


async def test_letters_that_cannot_be_read_hold_the_commit_until_they_can(harness: Harness) -> None:
    harness.n_failures = 2
    partition = harness.windows.partition(0)
    event = decode_event(event_json("e", "~u"))
    partition.replace(fold(partition.window("~u"), [event], WindowLimits()), generation=1)
    await harness.request("u")
    assert len(harness.readings) == 3
    assert harness.progress.positions == {REQUESTS: 1}
    assert partition.held == {}


async def test_a_request_of_an_earlier_generation_is_left_to_its_new_owner(
    harness: Harness,
) -> None:
    harness.n_failures = 1_000
    original = harness.forgetting._remove_letters

    async def remove_letters(ids: Collection[str]) -> None:
        harness.progress.start(2)
        await original(ids)

    harness.forgetting._remove_letters = remove_letters
    await harness.request("u")
    assert len(harness.readings) == 1
    assert harness.progress.positions == {}
