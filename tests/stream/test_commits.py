"""Commits: never past what was not processed, never taken for done when they were not.

Faust does both.

A worker that ends without its last checkpoint stands for one that was killed: what it leaves at
the broker and in Redis is the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import (
    CommitFailedError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    RequestTimedOutError,
)

from interest.partition import partition_of
from interest.window_bytes import window_from_bytes
from interest_cli.services import EmbeddedServices
from streams.outbox import Record
from streams.transport import ChunkConsumer
from streams.worker import Worker
from tests.conftest import Servers
from tests.stream.conftest import T0, Harness, event, eventually
from tests.stream.probes import (
    begin,
    changelog,
    committed,
    one_broker,
    publish_round,
    seen,
    settled,
    windows,
)
from tests.stream.test_worker import USERS


@pytest.fixture
def servers(request: pytest.FixtureRequest, embedded: EmbeddedServices) -> Servers:
    return one_broker(request, embedded)


def die_without_a_checkpoint(worker: Worker) -> None:
    """Let no checkpoint come through from here on, the one of an orderly end included."""

    async def never(consumer: ChunkConsumer) -> bool:
        raise KafkaConnectionError("the worker was killed")

    worker.parts.checkpoint.take = never  # type: ignore[method-assign]


# Commits past what was not processed.


async def test_what_was_not_processed_at_the_head_of_a_partition_is_never_committed(
    harness: Harness,
) -> None:
    """Faust skips its gap check where nothing was committed yet, and where one offset is missing.

    The first event of partition 0 has to be sent on to its subject's partition, and cannot be;
    the rest of the topic is read, encoded and readable.
    """
    await begin(harness)
    home = next(u for u in USERS if partition_of(u, harness.settings.partitions) != 0)
    await _publish_to(harness, 0, home, event("head", home, ts=T0 + 1))

    async with harness.worker() as worker:
        send_all = worker.parts.outbox.send_all
        blocked = asyncio.Event()

        async def hold(records: Sequence[Record]) -> None:
            if any(record.topic.endswith("routed") for record in records):
                blocked.set()
                await asyncio.Event().wait()
            await send_all(records)

        worker.parts.outbox.send_all = hold  # type: ignore[method-assign]
        await publish_round(harness, 1)
        await asyncio.wait_for(blocked.wait(), 30)
        for _ in range(3):
            await worker.parts.checkpoint.take(worker.parts.app.chunk_consumer)
        assert (await committed(harness))[0] == 0
    assert (await committed(harness))[0] == 0, "also not when the worker ends in order"

    async with harness.worker() as worker:
        await settled(harness, worker)
        assert windows(worker) == {user: 2 if user == home else 1 for user in USERS}


async def _publish_to(harness: Harness, partition: int, key: str, value: bytes) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=harness.settings.kafka_bootstrap, acks="all")
    await producer.start()
    await producer.send_and_wait(
        harness.settings.topic_prefix + "behaviours", value, key=key.encode(), partition=partition
    )
    await producer.stop()


async def test_a_killed_worker_committed_nothing_that_its_successor_does_not_hold(
    harness: Harness,
) -> None:
    await begin(harness)
    async with harness.worker() as worker:
        die_without_a_checkpoint(worker)
        for round_ in (1, 2):
            await publish_round(harness, round_)
        await seen(harness, 2)  # vectors wait for no checkpoint
    assert set((await committed(harness)).values()) == {0}
    async with harness.worker() as worker:
        await settled(harness, worker)
        assert windows(worker) == dict.fromkeys(USERS, 2)


# Failed sends and failed commits that are taken for done.


class _Refused:
    """A producer whose batches for the changelog fail while told to, at once or when awaited."""

    def __init__(self, worker: Worker, *, at_once: bool) -> None:
        #: How often, by partition.
        self.refused: Counter[int] = Counter()
        self.refusing = True
        self._at_once = at_once
        self._changelog = worker.parts.names.windows
        producer = worker.parts.outbox._producer
        assert producer is not None
        self._send_batch = producer.send_batch
        producer.send_batch = self.send_batch

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> Any:
        if topic != self._changelog or not self.refusing:
            return await self._send_batch(batch, topic, partition=partition)
        self.refused[partition] += 1
        if self._at_once:
            raise KafkaConnectionError("no leader")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(RequestTimedOutError())
        return future


@pytest.mark.parametrize("at_once", [True, False], ids=["not taken", "not acknowledged"])
async def test_a_commit_waits_until_the_changelog_has_every_window(
    harness: Harness, at_once: bool
) -> None:
    await begin(harness)
    async with harness.worker() as worker:
        refused = _Refused(worker, at_once=at_once)
        await publish_round(harness, 1)
        await seen(harness, 1)

        async def tried_again() -> bool:
            return max(refused.refused.values(), default=0) >= 3

        await eventually(tried_again)
        assert set((await committed(harness)).values()) == {0}
        assert worker.progress.pending()
        refused.refusing = False
        await settled(harness, worker)
    subjects = {window_from_bytes(r.value)[0].subject_id for r in await changelog(harness)}
    assert subjects == set(USERS)


@pytest.mark.parametrize(
    "error", [CommitFailedError(), KafkaTimeoutError("no answer"), KafkaConnectionError("gone")]
)
async def test_a_commit_that_failed_is_not_taken_for_done(
    harness: Harness, error: KafkaError
) -> None:
    await begin(harness)
    async with harness.worker() as worker:
        consumer = worker.parts.app.chunk_consumer._thread._ensure_consumer()
        commit, failures = consumer.commit, 0

        async def fail(offsets: Any) -> None:
            nonlocal failures
            failures += 1
            raise error

        consumer.commit = fail
        await publish_round(harness, 1)
        await seen(harness, 1)

        async def tried_again() -> bool:
            return failures >= 3

        await eventually(tried_again)
        assert worker.progress.pending(), "what the broker did not take is still to be committed"
        assert set((await committed(harness)).values()) == {0}
        consumer.commit = commit
        await settled(harness, worker)
