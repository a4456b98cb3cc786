"""Several workers in one group, and workers that fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from interest.errors import ServiceUnavailable
from streams.topics import ensure_topics
from streams.worker import Worker, WorkerFailed
from tests.stream.conftest import T0, Harness, event, eventually, item
from tests.stream.test_worker import USERS, publish


async def published(harness: Harness, round_: int) -> None:
    await publish(
        harness,
        "behaviours",
        *((u, event(f"{round_}-{u}", u, ts=T0 + round_)) for u in USERS),
    )


async def seen(harness: Harness, n_events: int) -> None:
    async def all_have_them() -> bool:
        states = await harness.vectors.fetch(USERS, harness.loaded.bundle.model_id)
        return all(s is not None and s.vector.n_events == n_events for s in states)

    await eventually(all_have_them)


async def test_workers_share_the_partitions_and_take_over_from_each_other(
    harness: Harness,
) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    async with harness.worker() as first:
        await published(harness, 1)
        await seen(harness, 1)
        async with harness.worker() as second:

            async def shared() -> bool:
                return bool(first.windows.partitions) and bool(second.windows.partitions)

            await eventually(shared)
            await published(harness, 2)
            await seen(harness, 2)
            owned = [set(first.windows.partitions), set(second.windows.partitions)]
            assert owned[0].isdisjoint(owned[1])
            assert owned[0] | owned[1] == set(range(harness.settings.partitions))
        # The second has left: the first recovers what it owned from the changelog.
        await published(harness, 3)
        await seen(harness, 3)
        assert first.windows.n_windows() == len(USERS)
        await harness.idle(first)


async def test_a_worker_whose_agent_fails_ends_and_the_next_one_loses_nothing(
    harness: Harness,
) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))

    async def fail(chunk: Any) -> None:
        raise RuntimeError("a bug in the fold")

    async with harness.worker() as worker:
        worker.parts.ingest.handle = fail  # type: ignore[method-assign]
        await published(harness, 1)
        with pytest.raises(WorkerFailed, match="a bug in the fold"):
            await asyncio.wait_for(worker.failure(), 30)
        assert worker.unready() == ["the worker has failed"]
    async with harness.worker() as worker:
        await seen(harness, 1)
        await harness.idle(worker)


async def test_a_worker_without_a_broker_says_so_and_can_be_closed(harness: Harness) -> None:
    harness.change(kafka_bootstrap="127.0.0.1:1")
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:1"):
        async with harness.worker():
            pytest.fail("it must not start")


async def test_a_checkpoint_commits_what_was_read_and_no_more(harness: Harness) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    async with harness.worker() as worker:
        await published(harness, 1)
        await seen(harness, 1)

        async def committed() -> bool:
            return not worker.progress.pending()

        await eventually(committed)
        told = await _committed_at_the_broker(worker)
        assert sum(offset for topic, offset in told if topic.endswith("behaviours")) == len(USERS)


async def _committed_at_the_broker(worker: Worker) -> list[tuple[str, int]]:
    from aiokafka import TopicPartition

    thread = worker.parts.app.chunk_consumer._thread
    consumer = thread._ensure_consumer()
    return [
        (tp.topic, await thread.call_thread(consumer.committed, TopicPartition(*tp)))
        for tp in worker.progress.positions
    ]
