"""Faust's own faults, each shown not to be ours.

Those of commits and of sends have a file of their own, ``test_commits.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from faust.types import TP

from interest.window_bytes import window_from_bytes
from interest_cli.services import EmbeddedServices
from streams.consumer_thread import ConsumerThread
from streams.ingest import Ingest
from streams.topics import admin_client, partition_counts
from streams.transport import Chunk
from streams.worker import WorkerFailed
from tests.conftest import Servers
from tests.stream.conftest import T0, Harness, event, eventually, item
from tests.stream.probes import (
    begin,
    changelog,
    committed,
    folded,
    lapsed,
    one_broker,
    publish_round,
    seen,
    settled,
    windows,
)
from tests.stream.test_worker import USERS, publish


@pytest.fixture
def servers(request: pytest.FixtureRequest, embedded: EmbeddedServices) -> Servers:
    return one_broker(request, embedded)


# Rebalances.


async def test_a_partition_is_handed_over_while_a_sink_hangs(harness: Harness) -> None:
    """With Faust's default a revocation waits until the streams are empty."""
    await begin(harness, n_rounds=1)
    async with harness.worker() as first:
        await seen(harness, 1)
        await settled(harness, first)
        hanging = asyncio.Event()
        upsert = first.ports.vectors.upsert

        async def hang(updates: Any) -> Any:
            await hanging.wait()
            return await upsert(updates)

        first.ports.vectors.upsert = hang  # type: ignore[method-assign]
        await publish_round(harness, 2)
        await folded(first, 2)
        async with harness.worker() as second:

            async def shared() -> bool:
                return bool(windows(second)) and not windows(first).keys() & windows(second).keys()

            await eventually(shared)
            assert len(windows(first)) + len(windows(second)) == len(USERS), (
                "windows written live leave the memory of who lost them"
            )
            hanging.set()
            await seen(harness, 2)
            await settled(harness, second)


async def test_recovery_takes_the_highest_token_and_not_the_last_record(harness: Harness) -> None:
    """A zombie that woke up late wrote an old window behind the owner's."""
    await begin(harness, n_rounds=1)
    async with harness.worker() as worker:
        await settled(harness, worker)
        old = {record.key: record for record in await changelog(harness)}
        await publish_round(harness, 2)
        await seen(harness, 2)
        await settled(harness, worker)
    user = USERS[0]
    stale = old[user.encode()]
    await _write_changelog(harness, stale)
    async with harness.worker() as worker:
        await settled(harness, worker)
        assert windows(worker)[user] == 2

        async def written_again() -> bool:
            last = [r for r in await changelog(harness) if r.key == user.encode()][-1]
            return len(window_from_bytes(last.value)[0]) == 2

        await eventually(written_again)  # compaction would keep only the zombie's


async def test_what_is_fetched_while_a_recovery_ends_is_read(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust lets partitions flow while it seeks, and clears the agents' queues behind that."""
    await begin(harness, n_rounds=1)
    async with harness.worker() as first:
        await settled(harness, first)
        seek, handle = ConsumerThread.seek_to_committed, Ingest.handle
        agents_free = asyncio.Event()
        seeking: list[asyncio.Task[None]] = []

        async def seek_slowly(thread: ConsumerThread) -> Mapping[TP, int]:
            offsets = await seek(thread)
            if not seeking:
                seeking.append(asyncio.create_task(publish_round(harness, 2)))
                await seeking[0]
                await eventually(lapsed(1.5))  # a fetch comes by within a second
            return offsets

        async def handle_later(ingest: Ingest, chunk: Chunk) -> None:
            await agents_free.wait()  # what comes meanwhile waits in the agent's queue
            await handle(ingest, chunk)

        monkeypatch.setattr(ConsumerThread, "seek_to_committed", seek_slowly)
        monkeypatch.setattr(Ingest, "handle", handle_later)
        async with harness.worker() as second:
            agents_free.set()
            await seen(harness, 2)
            await settled(harness, second)


async def test_a_chunk_that_does_not_come_to_its_agent_is_read_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queues of Faust's lie between, and it clears them."""
    await begin(harness, n_rounds=1)
    handle = Ingest.handle
    lost: list[Chunk] = []

    async def lose_one(ingest: Ingest, chunk: Chunk) -> None:
        if lost:
            await handle(ingest, chunk)
        else:
            lost.append(chunk)

    monkeypatch.setattr(Ingest, "handle", lose_one)
    async with harness.worker() as worker:
        await eventually(has_lost(lost))
        await publish_round(harness, 2)
        await seen(harness, 2)
        await settled(harness, worker)


def has_lost(lost: list[Chunk]) -> Callable[[], Awaitable[bool]]:
    async def told() -> bool:
        return bool(lost)

    return told


async def test_no_source_is_fetched_until_the_recovery_is_over(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that holds a fetch answers nothing else meanwhile, and Faust asks it a lot."""
    await begin(harness, n_rounds=1)
    seek = ConsumerThread.seek_to_committed
    fetched_before: list[Any] = []
    paused_after: list[Any] = []

    async def seek_watched(thread: ConsumerThread) -> Mapping[TP, int]:
        consumer = thread._ensure_consumer()
        sources = set(thread._sources(consumer))
        assert sources
        fetched_before.extend(sources - consumer.paused())
        offsets = await seek(thread)
        paused_after.extend(sources & consumer.paused())
        return offsets

    monkeypatch.setattr(ConsumerThread, "seek_to_committed", seek_watched)
    async with harness.worker() as worker:
        await settled(harness, worker)
    assert (fetched_before, paused_after) == ([], [])


async def _write_changelog(harness: Harness, record: Any, value: bytes | None = None) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=harness.settings.kafka_bootstrap, acks="all")
    await producer.start()
    await producer.send_and_wait(
        record.topic,
        value or record.value,
        key=record.key,
        partition=record.partition,
        headers=list(record.headers),
    )
    await producer.stop()


# Intake.


async def test_bytes_that_cannot_be_decoded_stall_no_consumer(harness: Harness) -> None:
    await begin(harness, n_rounds=1)
    junk: list[bytes | None] = [None, b"", b"\xff\xfe", b"{", b"[]", b"{}", b"\x00" * 100_000]
    for topic in ("behaviours", "catalogue", "routed", "items-encoded", "windows-changelog"):
        await publish(harness, topic, *((f"junk-{i}", value) for i, value in enumerate(junk)))
    async with harness.worker() as worker:
        await publish_round(harness, 2)
        await seen(harness, 2)
        await publish(harness, "catalogue", ("pot", item("pot", "A blue pot")))
        await publish(harness, "behaviours", ("u", event("late", "u", "pot", ts=T0 + 3)))

        async def resolved() -> bool:
            state = await harness.user("u")
            return state is not None and not state.vector.is_cold

        await eventually(resolved)
        await settled(harness, worker)


async def test_a_stuck_catalogue_starves_no_event(harness: Harness) -> None:
    """A Faust agent that is slow fills the queues that all topics share."""
    await begin(harness)
    async with harness.worker() as worker:
        await harness.idle(worker)
        stuck = asyncio.Event()
        handle = worker.parts.catalogue.handle

        async def wait(chunk: Any) -> None:
            await stuck.wait()
            await handle(chunk)

        worker.parts.catalogue.handle = wait  # type: ignore[method-assign]
        for n in range(30):  # each a fetch, and so a chunk, of its own
            await publish(harness, "catalogue", (f"i{n}", item(f"i{n}", f"Thing {n}")))
        await publish_round(harness, 1)
        await seen(harness, 1)
        stuck.set()
        await settled(harness, worker)
        assert await worker.ports.items.fetch(["i29"])


async def test_a_stuck_encoder_stalls_no_intake_and_grows_nothing(harness: Harness) -> None:
    await begin(harness)
    async with harness.worker() as worker:
        await harness.idle(worker)
        stuck = asyncio.Event()
        encode = worker.parts.batches._encode

        async def wait(batch: Any) -> None:
            await stuck.wait()
            await encode(batch)

        worker.parts.batches._encode = wait  # type: ignore[method-assign]
        for round_ in range(1, 6):
            await publish_round(harness, round_)
        await folded(worker, 5)
        assert len(worker.dirty) <= 2 * len(USERS), "in flight and waiting, once each"
        assert set((await committed(harness)).values()) == {0}
        stuck.set()
        await seen(harness, 5)
        await settled(harness, worker)


# Progress.


async def test_a_worker_that_has_work_and_does_none_is_ended_by_its_watchdog(
    harness: Harness,
) -> None:
    """Faust's consumers stall silently; only a new process helps."""
    harness.change(watchdog_s=2.0)
    await begin(harness)
    async with harness.worker() as worker:
        await settled(harness, worker)

        async def stall(chunk: Any) -> None:
            await asyncio.Event().wait()

        worker.parts.ingest.handle = stall  # type: ignore[method-assign]
        await publish_round(harness, 1)
        with pytest.raises(WorkerFailed, match=r"behaviours partition \d has lag and no progress"):
            await asyncio.wait_for(worker.failure(), 30)
    async with harness.worker() as worker:
        await seen(harness, 1)
        await settled(harness, worker)


# Defaults.


async def test_faust_runs_with_our_choices_and_not_with_its_defaults(harness: Harness) -> None:
    harness.change(partitions=5)
    await begin(harness)
    async with harness.worker() as worker:
        conf = worker.parts.app.conf
        assert not conf.stream_wait_empty, "a revocation would wait for a sink that is down"
        assert conf.table_standby_replicas == 0, "a second copy of every window"
        assert conf.stream_buffer_maxsize <= 4 * 5, "entries are chunks of up to a megabyte"
        assert conf.consumer_metadata_max_age_ms <= 5_000, "topics that are made again are missed"
        assert not conf.topic_allow_declare
    async with admin_client(harness.settings) as admin:
        counts = await partition_counts(admin)
    prefix = harness.settings.topic_prefix
    assert {counts[prefix + name] for name in ("behaviours", "routed", "windows-changelog")} == {5}
