"""Sources that start over, or that no longer have what was not read: found, said, survived.

Windows stay what the events make of them, and vectors go on to follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.admin import RecordsToDelete
from confluent_kafka.admin import AdminClient

from interest import metrics as m
from interest.errors import TopicMismatch
from interest_cli.replay import LoadedBundle
from interest_cli.services import EmbeddedServices
from streams.topics import admin_client, ensure_topics, partition_counts
from streams.worker import WorkerFailed
from tests.conftest import Servers
from tests.servers import kafka_process
from tests.stream.conftest import Harness, eventually
from tests.stream.probes import (
    Observed,
    all_have,
    begin,
    end_offsets,
    lapsed,
    move_group,
    partitions,
    publish_round,
    seen,
    settled,
    windows,
)
from tests.stream.test_worker import USERS


@pytest.fixture
async def kafka(
    kafka_bootstrap: str, embedded: EmbeddedServices, loaded: LoadedBundle
) -> AsyncIterator[Harness]:
    """An installation on Apache Kafka: the embedded broker cannot delete."""
    made = Harness(Servers("kafka", kafka_bootstrap, embedded.redis_url), loaded)
    yield made
    await made.vectors.close()


async def two_rounds(harness: Harness) -> None:
    """Let a worker read two rounds and end; what follows happens to its sources."""
    await begin(harness, n_rounds=2)
    async with harness.worker() as worker:
        await seen(harness, 2)
        await settled(harness, worker)


async def goes_on(harness: Harness, kind: str, *, before: int = 2) -> None:
    """Start a worker that finds out what happened, and follows the next round."""
    metrics = Observed()
    async with harness.worker(metrics) as worker:
        await publish_round(harness, before + 1)
        await seen(harness, before + 1)
        await settled(harness, worker)
        assert windows(worker) == dict.fromkeys(USERS, before + 1)
        await reported(metrics, kind)


async def reported(metrics: Observed, kind: str) -> None:
    """Wait for what is found; some of it needs a commit of the new worker."""

    async def found() -> set[str]:
        return set(resets(metrics))

    assert await eventually(found) == {kind}


async def nothing_reported(metrics: Observed) -> None:
    await eventually(lapsed(1.0))
    assert resets(metrics) == {}


def resets(metrics: Observed) -> dict[str, int]:
    return {kind: n for (name, kind), n in metrics.counted.items() if name == m.SOURCE_RESETS and n}


async def test_a_worker_that_just_starts_again_reports_nothing(harness: Harness) -> None:
    await two_rounds(harness)
    metrics = Observed()
    async with harness.worker(metrics) as worker:
        await publish_round(harness, 3)
        await seen(harness, 3)
        await settled(harness, worker)
        await nothing_reported(metrics)


# The offsets of the group.


@pytest.mark.kafka
async def test_a_group_set_back_reads_again_and_counts_nothing_twice(kafka: Harness) -> None:
    await two_rounds(kafka)
    await move_group(kafka, dict.fromkeys(range(kafka.settings.partitions), 0))
    await goes_on(kafka, "moved")


@pytest.mark.kafka
async def test_a_group_set_forward_skips_what_lies_between_and_says_so(kafka: Harness) -> None:
    await two_rounds(kafka)
    await publish_round(kafka, 3)
    await move_group(kafka, await end_offsets(kafka))
    metrics = Observed()
    async with kafka.worker(metrics) as worker:
        await publish_round(kafka, 4)
        await seen(kafka, 3)  # of rounds 1, 2 and 4
        await settled(kafka, worker)
        assert windows(worker) == dict.fromkeys(USERS, 3)
        await reported(metrics, "moved")


@pytest.mark.kafka
async def test_a_deleted_group_reads_again_and_its_lower_generation_freezes_no_vector(
    kafka: Harness,
) -> None:
    """Generations count anew from 1, below the tokens in Redis and in the changelog."""
    for _ in range(2):
        await two_rounds(kafka)
    admin = AdminClient({"bootstrap.servers": kafka.settings.kafka_bootstrap})

    async def deleted() -> bool:
        [future] = admin.delete_consumer_groups([kafka.settings.group_id]).values()
        error = await asyncio.to_thread(future.exception)
        # Refused while the broker still counts the member that has just left.
        return error is None

    await eventually(deleted)
    await goes_on(kafka, "group_lost")


# The topic.


async def _delete_topic(harness: Harness, topic: str) -> None:
    name = harness.settings.topic_prefix + topic
    async with admin_client(harness.settings) as admin:
        await admin.delete_topics([name])

        async def gone() -> bool:
            return name not in await partition_counts(admin)

        await eventually(gone)


@pytest.mark.kafka
async def test_a_topic_made_again_while_no_worker_ran_is_read_from_its_start(
    kafka: Harness,
) -> None:
    await two_rounds(kafka)
    await _delete_topic(kafka, "behaviours")
    await goes_on(kafka, "recreated")


@pytest.mark.kafka
async def test_a_topic_made_again_under_a_running_worker_is_followed(
    embedded: EmbeddedServices, loaded: LoadedBundle, tmp_path: Path
) -> None:
    with kafka_process(tmp_path, "auto.create.topics.enable=false") as broker:
        harness = Harness(Servers("kafka", broker.bootstrap, embedded.redis_url), loaded)
        harness.change(watchdog_s=5.0)
        await begin(harness, n_rounds=2)
        async with harness.worker() as worker:
            await seen(harness, 2)
            await settled(harness, worker)
            await _delete_topic(harness, "behaviours")
            await ensure_topics(harness.settings)
            await publish_round(harness, 3)

            async def followed_or_ended() -> bool:
                return await all_have(harness, 3) or worker._failed.done()

            await eventually(followed_or_ended)
        async with harness.worker() as worker:
            await publish_round(harness, 4)
            await seen(harness, 4)
            await settled(harness, worker)
            assert windows(worker) == dict.fromkeys(USERS, 4)
        await harness.vectors.close()


@pytest.mark.kafka
async def test_a_topic_that_comes_back_with_other_partitions_ends_the_worker(
    kafka: Harness,
) -> None:
    """This broker makes a topic whenever a client asks for it, with one partition."""
    await begin(kafka, n_rounds=2)
    async with kafka.worker() as worker:
        await seen(kafka, 2)
        await settled(kafka, worker)
        await _delete_topic(kafka, "behaviours")
        await publish_round(kafka, 3)
        # Which of them finds out first is chance: our look at the topics, or aiokafka, which
        # asserts that a partition it waits for is still assigned.
        with pytest.raises((TopicMismatch, WorkerFailed), match=r"behaviours has 1|Faust stopped"):
            await asyncio.wait_for(worker.failure(), 30)
    with pytest.raises(TopicMismatch, match="behaviours has 1"):
        async with kafka.worker():
            pytest.fail("it must not start")
    await _delete_topic(kafka, "behaviours")
    await ensure_topics(kafka.settings)
    await goes_on(kafka, "recreated")


@pytest.mark.kafka
async def test_a_topic_made_again_that_has_grown_past_the_commit_is_noticed(
    kafka: Harness,
) -> None:
    """No offset tells: the commit lies within the new topic, whose first events are unread."""
    await two_rounds(kafka)
    await _delete_topic(kafka, "behaviours")
    await ensure_topics(kafka.settings)
    for round_ in (3, 4, 5):
        await publish_round(kafka, round_)
    await goes_on(kafka, "recreated", before=5)


# Retention.


async def _remove_unread(harness: Harness) -> None:
    """Remove what lies in the topic, as retention does."""
    ends = await end_offsets(harness)
    async with admin_client(harness.settings) as admin:
        await admin.delete_records(
            {
                tp: RecordsToDelete(before_offset=ends[tp.partition])
                for tp in partitions(harness, "behaviours")
            }
        )


@pytest.mark.kafka
async def test_unread_events_that_retention_removed_are_reported_and_passed(
    kafka: Harness,
) -> None:
    await two_rounds(kafka)
    await publish_round(kafka, 3)
    await _remove_unread(kafka)
    metrics = Observed()
    async with kafka.worker(metrics) as worker:
        await publish_round(kafka, 4)
        await seen(kafka, 3)  # of rounds 1, 2 and 4
        await settled(kafka, worker)
        assert windows(worker) == dict.fromkeys(USERS, 3)
        await reported(metrics, "expired")


@pytest.mark.kafka
async def test_events_that_were_read_may_be_removed(kafka: Harness) -> None:
    await two_rounds(kafka)
    await _remove_unread(kafka)
    metrics = Observed()
    async with kafka.worker(metrics) as worker:
        await publish_round(kafka, 3)
        await seen(kafka, 3)
        await settled(kafka, worker)
        await nothing_reported(metrics)
