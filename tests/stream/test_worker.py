"""The worker over real brokers and a real Redis."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
import pytest
import redis
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Producer

from interest.errors import TopicMismatch
from interest.event import id_hash
from interest.metrics import EVENTS, NoMetrics
from interest.partition import partition_of
from interest.ports import VectorUpdate
from interest.recent import recent_to_bytes
from interest.vector import Token
from interest.window_bytes import window_from_bytes
from streams.topics import ensure_topics
from tests.stream.conftest import T0, Harness, event, eventually, item

USERS = [f"user-{i}" for i in range(24)]


class Counted(NoMetrics):
    """Counts the events that were folded."""

    def __init__(self) -> None:
        self.events = 0

    def count(self, name: str, n: float = 1, label: str = "") -> None:
        self.events += int(n) if name == EVENTS else 0


async def publish(harness: Harness, topic: str, *records: tuple[str | None, bytes | None]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=harness.settings.kafka_bootstrap,
        acks="all",
        # As our own producers do it: murmur2, like Java.
        partitioner=lambda key, all_, available: (
            all_[partition_of(key.decode(), len(all_))] if key else available[0]
        ),
    )
    await producer.start()
    try:
        for key, value in records:
            await producer.send_and_wait(
                harness.settings.topic_prefix + topic, value, key=key.encode() if key else None
            )
    finally:
        await producer.stop()


async def test_two_clients_that_hash_keys_differently_fill_one_window_per_user(
    harness: Harness,
) -> None:
    harness.change(partitions=12)
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    ours = [(user, event(f"ours-{user}", user, ts=T0 + 1)) for user in USERS]
    await publish(harness, "behaviours", *ours)
    theirs = Producer({"bootstrap.servers": harness.settings.kafka_bootstrap})
    topic = harness.settings.topic_prefix + "behaviours"
    for user in USERS:
        theirs.produce(topic, event(f"theirs-{user}", user, ts=T0 + 2), key=user)
    theirs.produce(topic, b'{"event_id": "broken', key="user-3")
    assert theirs.flush(30) == 0

    async with harness.worker() as worker:
        await harness.idle(worker)
        windows = {
            subject: held.window
            for partition in worker.windows.partitions.values()
            for subject, held in partition.held.items()
        }
    assert {user: [e.id_hash for e in w.events] for user, w in windows.items()} == {
        user: [id_hash(f"ours-{user}"), id_hash(f"theirs-{user}")] for user in USERS
    }
    # What a reader in any language does, from docs/contracts.md.
    plain = redis.Redis.from_url(harness.settings.redis_url)
    for user in USERS:
        key = f"{harness.settings.redis_prefix}user:{user}"
        raw: Any = plain.hget(key, harness.loaded.bundle.model_id)
        assert raw[:4] == b"IUV1"
        dim, n_interests, n_events = struct.unpack_from("<HHH", raw, 6)
        assert (n_interests, n_events) == (1, 2)
        assert struct.unpack_from("<q", raw, 32) == (T0 + 2,)
        assert abs(np.linalg.norm(np.frombuffer(raw, "<f4", dim, 64)) - 1) < 1e-5
    plain.close()
    [letter] = await harness.read("dead-letters")
    headers = dict(letter.headers)
    assert letter.value == b'{"event_id": "broken'
    assert headers["reason"] == b"malformed_json"
    assert headers["topic"] == topic.encode()
    assert letter.key == b"/".join((headers["topic"], headers["partition"], headers["offset"]))


async def test_a_worker_that_comes_back_has_its_windows_and_reads_nothing_twice(
    harness: Harness,
) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    await publish(harness, "behaviours", *((u, event(f"a-{u}", u)) for u in USERS))
    async with harness.worker() as worker:
        await harness.idle(worker)
        before = {u: await harness.user(u) for u in USERS}
    await publish(harness, "behaviours", *((u, event(f"b-{u}", u, ts=T0 + 9)) for u in USERS[:6]))
    counted = Counted()
    async with harness.worker(counted) as worker:
        await harness.idle(worker)
        assert counted.events == 6  # reading began at the commit of the last run
        for user in USERS:
            state = await harness.user(user)
            assert state.vector.n_events == (2 if user in USERS[:6] else 1)
            assert state.vector.token >= before[user].vector.token
    # Every window in the changelog can be read, and the newest of each user has all events.
    windows = [window_from_bytes(r.value)[0] for r in await harness.read("windows-changelog")]
    latest = {w.subject_id: w for w in windows}
    assert {u: len(latest[u]) for u in USERS} == {u: 2 if u in USERS[:6] else 1 for u in USERS}


async def test_an_item_that_comes_late_resolves_the_windows_that_hold_it(harness: Harness) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "behaviours", ("u", event("a", "u", "late")))
    async with harness.worker() as worker:
        state = await eventually(lambda: harness.user("u"))
        assert state.vector.is_cold
        await publish(harness, "catalogue", ("late", item("late", "A late kettle")))

        async def resolved() -> bool:
            return not (await harness.user("u")).vector.is_cold

        await eventually(resolved)
        await harness.idle(worker)


async def test_an_item_that_comes_while_no_worker_runs_resolves_them_at_the_next_start(
    harness: Harness,
) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "behaviours", ("u", event("a", "u", "late")))
    async with harness.worker() as worker:
        await eventually(lambda: harness.user("u"))
        await harness.idle(worker)
    await publish(harness, "catalogue", ("late", item("late", "A late kettle")))
    async with harness.worker():

        async def resolved() -> bool:
            return not (await harness.user("u")).vector.is_cold

        await eventually(resolved)


async def test_a_changed_title_renews_the_vectors_of_its_holders(harness: Harness) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    async with harness.worker() as worker:
        await publish(harness, "behaviours", ("u", event("a", "u")))
        await eventually(lambda: harness.user("u"))
        await harness.idle(worker)
        before = (await harness.user("u")).vector
        await publish(harness, "catalogue", ("mug", item("mug", "Garden hose, 20 metres")))

        async def renewed() -> bool:
            after = (await harness.user("u")).vector
            return not after.is_cold and float(after.vectors[0] @ before.vectors[0]) < 0.9

        await eventually(renewed)


async def test_a_removed_item_leaves_its_holders_cold_and_broken_items_become_letters(
    harness: Harness,
) -> None:
    await ensure_topics(harness.settings)
    await publish(
        harness, "catalogue",
        ("mug", item("mug", "A red mug")),
        ("untitled", b'{"item_id": "untitled"}'),
        ("other", item("mug2", "the key is another")),
    )  # fmt: skip
    async with harness.worker() as worker:
        await publish(harness, "behaviours", ("u", event("a", "u")))
        await eventually(lambda: harness.user("u"))
        await publish(harness, "catalogue", ("mug", None))

        async def cold() -> bool:
            return bool((await harness.user("u")).vector.is_cold)

        await eventually(cold)
        await harness.idle(worker)
    letters = await harness.read("dead-letters")
    assert sorted(dict(letter.headers)["reason"] for letter in letters) == [
        b"key_mismatch", b"missing_title",
    ]  # fmt: skip


async def test_a_broker_that_was_wiped_does_not_freeze_the_vectors(harness: Harness) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "behaviours", ("u", event("a", "u")))
    async with harness.worker():
        await eventually(lambda: harness.user("u"))
    # Redis holds a token that no new group would reach in years.
    held = await harness.user("u")
    far = msgspec.structs.replace(held.vector, token=Token(2, 90_000, 5))
    assert await harness.vectors.upsert([VectorUpdate(far, recent_to_bytes(held.recent))]) == [None]
    # New topics and a new group on the same Redis: as after a wipe of the broker.
    harness.change(topic_prefix=harness.settings.topic_prefix + "new-", group_id="new")
    await ensure_topics(harness.settings)
    await publish(harness, "behaviours", ("u", event("b", "u", ts=T0 + 5)))
    async with harness.worker() as worker:

        async def outbid() -> bool:
            return bool((await harness.user("u")).vector.event_time_ms == T0 + 5)

        await eventually(outbid)
        assert (await harness.user("u")).vector.token.era == 3
        await harness.idle(worker)


async def test_topics_that_do_not_fit_together_are_refused(harness: Harness) -> None:
    await ensure_topics(harness.settings)
    prefix = harness.settings.topic_prefix + "odd-"
    admin = AIOKafkaAdminClient(bootstrap_servers=harness.settings.kafka_bootstrap)
    await admin.start()
    await admin.create_topics(
        [NewTopic(f"{prefix}behaviours", 3, 1), NewTopic(f"{prefix}routed", 2, 1)]
    )
    await admin.close()
    harness.change(topic_prefix=prefix)
    with pytest.raises(TopicMismatch, match="routed has 2 partitions"):
        await ensure_topics(harness.settings)


async def test_an_existing_behaviours_topic_decides_the_number_of_partitions(
    harness: Harness,
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=harness.settings.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{harness.settings.topic_prefix}behaviours", 3, 1)])
    await admin.close()
    report = await ensure_topics(harness.settings)
    assert report.partitions == 3
    assert len(report.created) == 8
    again = await ensure_topics(harness.settings)
    assert again.created == ()
