"""A worker over real servers, with names of its own for every test."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer

from interest.metrics import NoMetrics
from interest.settings import Settings
from interest_cli.replay import LoadedBundle
from interest_cli.wiring import open_worker, user_vectors
from store.redis_vectors import RedisUserVectors
from streams.worker import Worker
from tests.conftest import Servers

T0 = 1_700_000_000_000
DEADLINE_S = 60.0


async def eventually(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Wait until a condition holds, and give what it gave; fail when the deadline is over."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = await condition()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE_S:g} s: {condition}")
        await asyncio.sleep(0.02)


def event(event_id: str, user_id: str, item_id: str | None = "mug", **fields: Any) -> bytes:
    values = {"event_id": event_id, "user_id": user_id, "item_id": item_id, "type": "click"}
    return msgspec.json.encode({"ts": T0, **values, **fields})


def item(item_id: str, title: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"item_id": item_id, "title": title, **fields})


class Harness:
    """One installation: its own topics, group and Redis keys."""

    def __init__(self, servers: Servers, loaded: LoadedBundle) -> None:
        name = uuid.uuid4().hex[:8]
        self.loaded = loaded
        self.settings = Settings(
            kafka_bootstrap=servers.kafka_bootstrap,
            redis_url=servers.redis_url,
            redis_prefix=f"{name}:",
            topic_prefix=f"{name}-",
            group_id=name,
            partitions=4,
            session_timeout_s=3.0,
            fetch_max_wait_ms=20,
            checkpoint_min_s=0.1,
        )
        self.vectors: RedisUserVectors = user_vectors(self.settings)

    def change(self, **settings: Any) -> None:
        self.settings = msgspec.structs.replace(self.settings, **settings)

    @asynccontextmanager
    async def worker(self, metrics: NoMetrics | None = None) -> AsyncIterator[Worker]:
        opened = open_worker(self.settings, self.loaded, metrics or NoMetrics())
        async with opened as (worker, _, _):
            yield worker

    async def idle(self, worker: Worker) -> None:
        await eventually(worker.idle)

    async def user(self, user_id: str) -> Any:
        [state] = await self.vectors.fetch([user_id], self.loaded.bundle.model_id)
        return state

    async def read(self, topic: str) -> list[Any]:
        """Read a topic to its present end."""
        consumer = AIOKafkaConsumer(
            self.settings.topic_prefix + topic,
            bootstrap_servers=self.settings.kafka_bootstrap,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
        )
        await consumer.start()
        try:
            records: list[Any] = []
            ends = await consumer.end_offsets(consumer.assignment())
            for tp, end in ends.items():
                while await consumer.position(tp) < end:
                    fetched = await consumer.getmany(tp, timeout_ms=1000)
                    records.extend(fetched.get(tp, []))
            return records
        finally:
            await consumer.stop()


@pytest.fixture
async def harness(servers: Servers, loaded: LoadedBundle) -> AsyncIterator[Harness]:
    made = Harness(servers, loaded)
    yield made
    await made.vectors.close()
