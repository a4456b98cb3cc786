"""What the tests of faults look at: counted metrics, offsets at the broker, readiness."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from interest.errors import ServiceUnavailable
from interest.metrics import NoMetrics
from interest.settings import Settings
from interest_cli.services import EmbeddedServices
from interest_cli.wiring import worker_checks
from streams.topics import ensure_topics
from streams.worker import Worker
from tests.conftest import Servers
from tests.servers import KAFKA_START
from tests.stream.conftest import T0, Harness, event, eventually, item
from tests.stream.test_worker import USERS, publish


def one_broker(request: pytest.FixtureRequest, embedded: EmbeddedServices) -> Servers:
    """Give Apache Kafka where it is, else the embedded one: for faults that are the client's."""
    kafka = KAFKA_START.exists()
    bootstrap = request.getfixturevalue("kafka_bootstrap") if kafka else embedded.kafka_bootstrap
    return Servers("kafka" if kafka else "tansu", bootstrap, embedded.redis_url)


class Observed(NoMetrics):
    """Remembers counters and gauges by (name, label)."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        self.gauges: dict[tuple[str, str], float] = {}

    def count(self, name: str, n: float = 1, label: str = "") -> None:
        self.counted[name, label] += int(n)

    def set(self, name: str, value: float, label: str = "") -> None:
        self.gauges[name, label] = value

    def total(self, name: str) -> int:
        return sum(n for (counted, _), n in self.counted.items() if counted == name)


@asynccontextmanager
async def group_member(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Speak for the group without being in it: to read its offsets, or to move them."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=settings.group_id,
        enable_auto_commit=False,
        fetch_max_wait_ms=20,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def partitions(harness: Harness, topic: str) -> list[TopicPartition]:
    """Name the partitions of a source topic; there are as many as the harness' settings say."""
    name = harness.settings.topic_prefix + topic
    return [TopicPartition(name, n) for n in range(harness.settings.partitions)]


async def committed(harness: Harness, topic: str = "behaviours") -> dict[int, int]:
    """Read what the broker holds as committed, by partition; 0 where it holds nothing."""
    tps = partitions(harness, topic)
    async with group_member(harness.settings) as consumer:
        consumer.assign(tps)
        return {tp.partition: await consumer.committed(tp) or 0 for tp in tps}


async def end_offsets(harness: Harness, topic: str = "behaviours") -> dict[int, int]:
    """Read where a topic ends, by partition."""
    tps = partitions(harness, topic)
    async with group_member(harness.settings) as consumer:
        consumer.assign(tps)
        # The embedded broker names the beginning of the last batch, so what follows is read.
        for tp, end in (await consumer.end_offsets(tps)).items():
            consumer.seek(tp, end)
        ends: dict[int, int] = {}
        while len(ends) < len(tps):
            await consumer.getmany(timeout_ms=20)
            for tp in tps:
                position = await consumer.position(tp)
                if position == consumer.highwater(tp):
                    ends[tp.partition] = position
    return ends


async def move_group(harness: Harness, offsets: Mapping[int, int]) -> None:
    """Commit offsets of ``behaviours`` for the group, as an operator's reset does."""
    topic = harness.settings.topic_prefix + "behaviours"
    async with group_member(harness.settings) as consumer:
        consumer.assign([TopicPartition(topic, n) for n in offsets])
        await consumer.commit({TopicPartition(topic, n): o for n, o in offsets.items()})


async def all_committed(harness: Harness) -> bool:
    return await committed(harness) == await end_offsets(harness)


async def not_ready(worker: Worker) -> dict[str, str]:
    """Give the readiness checks that fail, and what each says."""
    failing: dict[str, str] = {}
    for name, check in worker_checks(worker, worker.ports.vectors, worker.ports.items).items():
        try:
            await check()
        except ServiceUnavailable as error:
            failing[name] = str(error)
    return failing


async def ready(worker: Worker) -> bool:
    return not await not_ready(worker)


async def begin(harness: Harness, n_rounds: int = 0) -> None:
    """Create the topics, and publish an item and rounds of one event for each user."""
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    for round_ in range(1, n_rounds + 1):
        await publish_round(harness, round_)


def lapsed(seconds: float) -> Callable[[], Awaitable[bool]]:
    """Give a condition that holds after so long: for an outage, whose length is what is tried."""
    end = time.monotonic() + seconds

    async def over() -> bool:
        return time.monotonic() > end

    return over


async def publish_round(harness: Harness, round_: int, n_each: int = 1) -> None:
    """Publish events of each user, newer than those of earlier rounds, all at once."""
    producer = AIOKafkaProducer(bootstrap_servers=harness.settings.kafka_bootstrap, acks="all")
    await producer.start()
    try:
        sent = [
            await producer.send(
                harness.settings.topic_prefix + "behaviours",
                event(f"{round_}-{user}" + f"-{n}" * (n > 0), user, ts=T0 + round_),
                key=user.encode(),
            )
            for n in range(n_each)
            for user in USERS
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def all_have(harness: Harness, n_events: int) -> bool:
    try:
        states = await harness.vectors.fetch(USERS, harness.loaded.bundle.model_id)
    except ServiceUnavailable:  # a reader's connections were cut as well
        return False
    return all(state is not None and state.vector.n_events == n_events for state in states)


async def seen(harness: Harness, n_events: int) -> None:
    """Wait until the vector of every user is readable, and made of so many events."""
    await eventually(lambda: all_have(harness, n_events))


async def settled(harness: Harness, worker: Worker) -> None:
    """Wait until nothing is left to do: read, encoded, stored, committed, and ready."""
    await harness.idle(worker)
    await eventually(lambda: all_committed(harness))
    await eventually(lambda: ready(worker))


async def folded(worker: Worker, n_events: int) -> None:
    """Wait until the windows of every user hold so many events, whatever became of vectors."""

    async def all_folded() -> bool:
        sizes = windows(worker)
        return len(sizes) == len(USERS) and set(sizes.values()) == {n_events}

    await eventually(all_folded)


def windows(worker: Worker) -> dict[str, int]:
    """Give the number of events in each window that this worker holds."""
    return {
        subject_id: len(partition.window(subject_id))  # folds what was read
        for partition in worker.windows.partitions.values()
        for subject_id in {*partition.held, *partition.unfolded}
    }


async def changelog(harness: Harness) -> list[Any]:
    """Read the records of windows in the changelog, oldest first within a partition."""
    return [record for record in await harness.read("windows-changelog") if record.value]
