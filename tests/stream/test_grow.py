"""Growing the number of partitions: the same windows afterwards, wherever it is interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.admin import NewPartitions

from interest.errors import BadInput, ServiceUnavailable, TopicMismatch
from interest.forgetting import Marker
from interest.metrics import NoMetrics
from interest.partition import partition_of
from interest.vector import Token
from streams.grow import grow
from streams.outbox import Outbox, Record
from streams.topics import TopicNames, admin_client, ensure_topics
from streams.window_records import WindowRecords
from tests.stream.conftest import T0, Harness, event, item
from tests.stream.test_worker import USERS, publish

on_kafka = pytest.mark.parametrize(
    "servers", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True
)
N_BEFORE, N_AFTER = 3, 7


class Grown:
    """One installation with a window for each user, and what it looked like."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.names = TopicNames.of(harness.settings)

    async def grow(self, n: int) -> int:
        async def drain() -> None:
            async with self.harness.worker() as worker:
                await self.harness.idle(worker)

        return (await grow(self.harness.settings, n, drain, lambda line: None)).n_windows

    async def run(self) -> dict[str, bytes]:
        """Let a worker read everything; give what the windows it holds contain."""
        async with self.harness.worker() as worker:
            await self.harness.idle(worker)
            held = [
                (subject, number, entry.window.content())
                for number, partition in worker.windows.partitions.items()
                for subject, entry in partition.held.items()
            ]
            n = len(worker.windows.partitions)
        assert all(number == partition_of(subject, n) for subject, number, _ in held)
        assert len({subject for subject, _, _ in held}) == len(held)
        return {subject: content for subject, _, content in held}

    async def vectors(self) -> dict[str, tuple[Any, ...]]:
        """Give what readers see but the encode time: a start may renew what is minutes old."""
        states = {user: (await self.harness.user(user)).vector for user in USERS}
        return {
            user: (
                vector.token,
                vector.n_events,
                vector.event_time_ms,
                vector.vectors.round(4).tolist(),
            )
            for user, vector in states.items()
        }

    async def changelog(self) -> dict[bytes, tuple[int, bytes]]:
        """Give the record of each window that counts, and the one partition it lies on."""
        newest: dict[tuple[bytes, int], Any] = {}
        for record in await self.harness.read("windows-changelog"):
            newest[record.key, record.partition] = record.value
        there = {place: value for place, value in newest.items() if value is not None}
        assert len({key for key, _ in there}) == len(there)
        return {key: (partition, value) for (key, partition), value in there.items()}


@pytest.fixture
async def grown(harness: Harness) -> Grown:
    harness.change(partitions=N_BEFORE)
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    await publish(harness, "behaviours", *((u, event(f"a-{u}", u)) for u in USERS))
    return Grown(harness)


@on_kafka
async def test_windows_move_to_their_home_and_vectors_are_not_touched(grown: Grown) -> None:
    before = await grown.run()
    assert set(before) == set(USERS)
    records, vectors = await grown.changelog(), await grown.vectors()
    moving = [u for u in USERS if partition_of(u, N_BEFORE) != partition_of(u, N_AFTER)]
    assert await grown.grow(N_AFTER) == len(moving) > 0
    after = await grown.changelog()
    for user in USERS:
        home, raw = after[user.encode()]
        assert home == partition_of(user, N_AFTER)
        assert raw == records[user.encode()][1]
    assert await grown.run() == before
    assert await grown.vectors() == vectors
    # Its events find the window where it is now, whatever partition they lie on.
    harness = grown.harness
    await publish(harness, "behaviours", *((u, event(f"b-{u}", u, ts=T0 + 1)) for u in USERS))
    await grown.run()
    for user in USERS:
        assert (await harness.user(user)).vector.n_events == 2


@on_kafka
async def test_events_that_were_not_read_before_are_read_afterwards(grown: Grown) -> None:
    """Those of the old partitions are sent on to where their users' windows are."""
    harness = grown.harness

    async def no_drain() -> None:
        """As if these were published behind the last one."""

    await grow(harness.settings, N_AFTER, no_drain, lambda line: None)
    assert set(await grown.run()) == set(USERS)


class Killed(Exception):
    """Stands for the death of the process."""


@on_kafka
@pytest.mark.parametrize("n_steps", [0, 1, 2, 3])
async def test_what_was_interrupted_stops_workers_and_is_completed_by_the_same_command(
    grown: Grown, n_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await grown.run()
    send_all, steps = Outbox.send_all, 0

    async def dying(self: Outbox, records: Sequence[Record]) -> None:
        nonlocal steps
        if steps == n_steps:  # in the middle of a batch
            await send_all(self, records[: len(records) // 2])
            raise Killed
        steps += 1
        await send_all(self, records)

    async def no_drain() -> None:
        """The worker of the last run has read everything."""

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "send_all", dying)
        with pytest.raises(Killed):
            await grow(grown.harness.settings, N_AFTER, no_drain, lambda line: None)
    with pytest.raises(TopicMismatch, match=f"interest topics grow {N_AFTER}"):
        await ensure_topics(grown.harness.settings)
    with pytest.raises(BadInput, match=f"growing to {N_AFTER} was begun"):
        await grown.grow(N_AFTER - 1)
    await grown.grow(N_AFTER)
    assert await grown.run() == before


@on_kafka
async def test_a_window_comes_back_to_a_partition_that_it_left_before(grown: Grown) -> None:
    """Behind its tombstone there, the same token would be taken for a zombie's."""
    sizes = range(N_BEFORE + 1, 40)
    user, n, m = next(
        (u, n, m)
        for u in USERS
        for n in sizes
        for m in sizes
        if n < m and partition_of(u, N_BEFORE) == partition_of(u, m) != partition_of(u, n)
    )
    before = await grown.run()
    await grown.grow(n)
    await grown.grow(m)
    after = await grown.run()
    assert after[user] == before[user]
    assert after == before


@on_kafka
async def test_markers_of_forgotten_people_go_to_every_partition(grown: Grown) -> None:
    await grown.run()
    marker = Marker(b"h" * 16, T0, Token(1, 2, 3))
    outbox = Outbox(grown.harness.settings, NoMetrics())
    await outbox.start()
    await outbox.send_all([WindowRecords(grown.names.windows).marker(1, marker)])
    await outbox.stop()
    await grown.grow(N_AFTER)
    async with grown.harness.worker() as worker:
        held = {number: part.markers for number, part in worker.windows.partitions.items()}
    assert held == {number: {marker.subject_hash: marker} for number in range(N_AFTER)}


@on_kafka
async def test_nothing_grows_while_a_worker_is_in_the_group(grown: Grown) -> None:
    async with grown.harness.worker():
        with pytest.raises(TopicMismatch, match="has 1 members"):
            await grown.grow(N_AFTER)
    assert (await ensure_topics(grown.harness.settings)).partitions == N_BEFORE


@on_kafka
@pytest.mark.parametrize(("n", "words"), [(2, "2 would be fewer"), (3, "3 partitions already")])
async def test_partitions_are_only_added(grown: Grown, n: int, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        await grown.grow(n)


@pytest.mark.parametrize("servers", ["tansu"], indirect=True)
async def test_a_broker_that_cannot_add_partitions_is_told_before_anything_is_done(
    harness: Harness,
) -> None:
    await ensure_topics(harness.settings)

    async def drain() -> None:
        pytest.fail("nothing may be done")

    with pytest.raises(ServiceUnavailable, match="cannot add partitions"):
        await grow(harness.settings, 8, drain, lambda line: None)


@on_kafka
async def test_a_source_that_was_grown_by_other_means_is_completed(grown: Grown) -> None:
    harness = grown.harness
    before = await grown.run()
    async with admin_client(harness.settings) as admin:
        await admin.create_partitions({grown.names.behaviours: NewPartitions(N_AFTER)})
    await publish(harness, "behaviours", *((u, event(f"b-{u}", u, ts=T0 + 1)) for u in USERS))
    with pytest.raises(TopicMismatch, match=f"interest topics grow {N_AFTER}"):
        await grown.run()
    assert await grown.grow(N_AFTER) > 0
    after = await grown.run()
    assert set(after) == set(before)
    for user in USERS:
        assert (await harness.user(user)).vector.n_events == 2
