"""A person who is forgotten stays forgotten, whatever comes later or again."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import redis

from interest.recent import recent_to_bytes
from interest.vector import Token
from streams.control import Order, give_order, request_forget
from streams.topics import ensure_topics
from streams.worker import Worker
from tests.stream.conftest import Harness, event, eventually, item
from tests.stream.test_worker import publish


def now_ms() -> int:
    return int(time.time() * 1000)


async def started(harness: Harness) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))


def held(worker: Worker, user: str) -> Any:
    for partition in worker.windows.partitions.values():
        if user in partition.held:
            return partition.held[user]
    return None


async def settled(harness: Harness, worker: Worker) -> None:
    """Everything is read and committed, and thus forgotten where that was asked."""

    async def through() -> bool:
        return await worker.idle() and not worker.progress.pending()

    await eventually(through)


async def test_nothing_of_a_forgotten_person_is_left_or_comes_back(harness: Harness) -> None:
    await started(harness)
    old = now_ms()
    async with harness.worker() as worker:
        await publish(
            harness,
            "behaviours",
            ("ann", event("a1", "ann", ts=old)),
            ("ann", b'{"event_id": "a2", "user_id": "ann", "type": "shout"}'),
            ("bob", event("b1", "bob", ts=old)),
            ("bob", b"garbage of bob"),
        )
        await eventually(lambda: harness.user("ann"))
        await request_forget(harness.settings, "ann")

        async def gone() -> bool:
            return await harness.user("ann") is None and held(worker, "ann") is None

        await eventually(gone)
        # Late, and again: neither brings her back.
        await publish(harness, "behaviours", ("ann", event("a3", "ann", ts=old - 5)))
        await publish(harness, "behaviours", ("ann", event("a1", "ann", ts=old)))
        await settled(harness, worker)
        assert await gone()
        assert await harness.user("bob") is not None
    plain = redis.Redis.from_url(harness.settings.redis_url)
    keys = [bytes(key) for key in plain.scan_iter(f"{harness.settings.redis_prefix}*")]
    assert not [key for key in keys if b"ann" in key]
    plain.close()
    assert [r.value for r in await newest(harness, "user-vectors", b"ann")] == [None]
    letters = [r for r in await harness.read("dead-letters") if r.value is not None]
    removed = {r.key for r in await harness.read("dead-letters") if r.value is None}
    assert [r.value for r in letters if r.key not in removed] == [b"garbage of bob"]
    # Not by a fresh worker, which reads the changelog, either.
    async with harness.worker() as worker:
        await settled(harness, worker)
        assert held(worker, "ann") is None
        assert await harness.user("ann") is None
        # She may come back as somebody new.
        await publish(harness, "behaviours", ("ann", event("a9", "ann", ts=now_ms())))
        state = await eventually(lambda: harness.user("ann"))
        assert state.vector.n_events == 1
        assert [recent.ts for recent in state.recent] > [old]


async def newest(harness: Harness, topic: str, key: bytes) -> list[Any]:
    return [r for r in await harness.read(topic) if r.key == key][-1:]


async def test_a_worker_that_sleeps_through_it_cannot_bring_a_person_back(
    harness: Harness,
) -> None:
    await started(harness)
    async with harness.worker() as worker:
        await publish(harness, "behaviours", ("ann", event("a1", "ann", ts=now_ms())))
        before = await eventually(lambda: harness.user("ann"))
        await settled(harness, worker)
        written = [r for r in await harness.read("windows-changelog") if r.key == b"ann"]
        await request_forget(harness.settings, "ann")

        async def gone() -> bool:
            return await harness.user("ann") is None

        await eventually(gone)
        await settled(harness, worker)
    # What the sleeper still held, it writes now: to Redis, and last in the changelog.
    from interest.ports import VectorUpdate

    [answer] = await harness.vectors.upsert(
        [VectorUpdate(before.vector, recent_to_bytes(before.recent))]
    )
    assert answer is not None
    assert not isinstance(answer, Token)
    [old] = written[-1:]
    await publish_raw(harness, "windows-changelog", old)
    async with harness.worker() as worker:
        await settled(harness, worker)
        assert held(worker, "ann") is None
        assert await harness.user("ann") is None
    # The changelog was mended: the last record of her key is a tombstone again.
    assert [r.value for r in await newest(harness, "windows-changelog", b"ann")] == [None]


async def publish_raw(harness: Harness, topic: str, record: Any) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=harness.settings.kafka_bootstrap, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(
            harness.settings.topic_prefix + topic,
            record.value,
            key=record.key,
            partition=record.partition,
            headers=list(record.headers),
        )
    finally:
        await producer.stop()


async def test_requests_of_other_partitions_and_broken_ones_find_their_place(
    harness: Harness,
) -> None:
    await started(harness)
    async with harness.worker() as worker:
        await publish(
            harness,
            "behaviours",
            *((f"u{i}", event(f"e{i}", f"u{i}", ts=now_ms())) for i in range(8)),
        )
        await eventually(lambda: harness.user("u7"))
        # Keyed by nothing, as a careless client does it: any partition.
        await publish(
            harness,
            "forget",
            *((None, msgspec.json.encode({"user_id": f"u{i}"})) for i in range(8)),
            (None, b"{}"),
        )

        async def all_gone() -> bool:
            return not any([await harness.user(f"u{i}") for i in range(8)])

        await eventually(all_gone)
        await settled(harness, worker)
    assert [r.value for r in await harness.read("dead-letters")] == [b"{}"]


async def test_an_order_to_rebuild_renews_every_vector(harness: Harness) -> None:
    await started(harness)
    async with harness.worker() as worker:
        await publish(harness, "behaviours", ("ann", event("a1", "ann", ts=now_ms())))
        before = await eventually(lambda: harness.user("ann"))
        await settled(harness, worker)
        await give_order(harness.settings, Order("rebuild"))

        async def renewed() -> bool:
            state = await harness.user("ann")
            return bool(state.vector.encode_time_ms > before.vector.encode_time_ms)

        await eventually(renewed)


async def test_an_emptied_redis_is_refilled_and_still_knows_who_was_forgotten(
    harness: Harness,
) -> None:
    await started(harness)
    async with harness.worker() as worker:
        await publish(harness, "behaviours", ("ann", event("a1", "ann", ts=now_ms())))
        await publish(harness, "behaviours", ("bob", event("b1", "bob", ts=now_ms())))
        before = await eventually(lambda: harness.user("ann"))
        await request_forget(harness.settings, "ann")
        await settled(harness, worker)
        plain = redis.Redis.from_url(harness.settings.redis_url)
        for key in plain.scan_iter(f"{harness.settings.redis_prefix}*"):
            plain.delete(key)
        plain.close()
        await eventually(lambda: harness.user("bob"))
        assert await harness.vectors.live_model() is not None

        async def guarded() -> bool:
            from interest.ports import VectorUpdate

            [answer] = await harness.vectors.upsert(
                [VectorUpdate(before.vector, recent_to_bytes(before.recent))]
            )
            return answer is not None

        await eventually(guarded)
