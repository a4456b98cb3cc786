"""From dirty users to readable vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec
import pytest

from interest.errors import ServiceUnavailable
from interest.event import decode_event
from interest.fold import fold
from interest.forgetting import Marker, subject_hash
from interest.metrics import NoMetrics
from interest.ports import VectorUpdate
from interest.recent import recent_from_bytes
from interest.vector import Token
from interest.window import WindowLimits
from streams.batch_size import BatchSize
from streams.change_feed import Announcement, ChangeFeed
from streams.dirty import DirtyUsers
from streams.encoding import WindowEncoding
from streams.micro_batches import MicroBatches, Poisoned
from streams.upserts import Refused, Upserts
from tests.unit.streams.fakes import (
    T0,
    CountingEncoder,
    Items,
    Outbox,
    Vectors,
    Windows,
    event_json,
)


class Harness:
    def __init__(self, budget_tokens: int = 1_000) -> None:
        self.budget_tokens = budget_tokens
        self.windows, self.dirty, self.vectors = Windows(), DirtyUsers(), Vectors()
        self.encoder, self.outbox, self.items = CountingEncoder(), Outbox(), Items("i")
        self.refused: list[Refused] = []
        self.poisoned: list[Poisoned] = []
        self._executor = ThreadPoolExecutor(1)
        self.feed = ChangeFeed(self.outbox, "user-vectors", lease_s=60, aligned=True)  # type: ignore[arg-type]

    async def _on_refused(self, refusals: Sequence[Refused]) -> None:
        self.refused += refusals
        self.dirty.confirm([refusal.job.mark for refusal in refusals])

    async def _on_poisoned(self, poisoned: Poisoned) -> None:
        self.poisoned.append(poisoned)
        self.dirty.confirm([poisoned.job.mark])

    def see(self, user: str, *event_ids: str, item_id: str = "i") -> None:
        partition = self.windows.partition(0)
        events = [decode_event(event_json(e, user, item_id=item_id)) for e in event_ids]
        partition.replace(fold(partition.window(user), events, WindowLimits()), generation=1)
        self.dirty.mark(user, 0, T0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        upserts = Upserts(
            model_id="m", windows=self.windows, dirty=self.dirty, vectors=self.vectors,  # type: ignore[arg-type]
            feed=self.feed, clock=lambda: T0 + 5, metrics=NoMetrics(),
            source_offset=lambda n: 41, refused=self._on_refused,
        )  # fmt: skip
        batches = MicroBatches(
            encoder=self.encoder, windows=self.windows, dirty=self.dirty,  # type: ignore[arg-type]
            encoding=WindowEncoding(self.encoder, self._executor, WindowLimits()),
            lookup=self.items, upserts=upserts, feed=self.feed, metrics=NoMetrics(),
            size=BatchSize(self.budget_tokens, 60.0), poisoned=self._on_poisoned,
        )  # fmt: skip
        self.batches = batches
        task = asyncio.create_task(batches.run())
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._executor.shutdown()

    async def settle(self) -> None:
        await asyncio.wait_for(self.dirty.settled(self.dirty.last_seq), 5)


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_a_dirty_user_becomes_a_readable_vector_that_says_how_old_it_is(
    harness: Harness,
) -> None:
    harness.see("u", "a", "b")
    async with harness.running():
        await harness.settle()
    stored = harness.vectors.stored["u"]
    assert stored.vector.token == (0, 1, 1)
    assert (stored.vector.n_events, stored.vector.event_time_ms) == (2, T0)
    assert (stored.vector.encode_time_ms, stored.vector.source_offset) == (T0 + 5, 41)
    assert [recent.item_id for recent in recent_from_bytes(stored.recent)] == ["i", "i"]


async def test_many_events_of_one_user_cost_one_encode(harness: Harness) -> None:
    for i in range(40):
        harness.see("u", f"e{i}")
    async with harness.running():
        await harness.settle()
    assert harness.encoder.batches == [["u"]]
    assert harness.vectors.stored["u"].vector.n_events == 40


async def test_each_upsert_is_announced(harness: Harness) -> None:
    harness.see("u", "a")
    async with harness.running():
        await harness.settle()
        await asyncio.wait_for(harness.outbox.first.wait(), 5)
    [record] = harness.outbox.sent
    assert (record.topic, record.key, record.partition) == ("user-vectors", b"u", 0)
    told = msgspec.json.decode(record.value or b"", type=Announcement)
    assert (told.user_id, told.token, told.event_time_ms) == ("u", (0, 1, 1), T0)


async def test_where_the_feed_has_other_partitions_the_key_decides(harness: Harness) -> None:
    harness.feed = ChangeFeed(harness.outbox, "user-vectors", lease_s=60, aligned=False)  # type: ignore[arg-type]
    harness.see("u", "a")
    async with harness.running():
        await harness.settle()
        await asyncio.wait_for(harness.outbox.first.wait(), 5)
    [record] = harness.outbox.sent
    assert (record.key, record.partition) == (b"u", None)


async def test_a_window_that_cannot_be_encoded_is_isolated(harness: Harness) -> None:
    for user in "abcdefg":
        harness.see(user, "e")
    harness.encoder.poison = lambda window: window.subject_id == "c"
    harness.encoder.nan = lambda window: window.subject_id == "f"
    async with harness.running():
        await harness.settle()
    assert sorted(harness.vectors.stored) == ["a", "b", "d", "e", "g"]
    assert [found.job.mark.subject_id for found in harness.poisoned] == ["c", "f"]


async def test_a_device_that_takes_no_big_batch_gets_smaller_ones(harness: Harness) -> None:
    for user in "abcdefg":
        harness.see(user, "e")
    harness.encoder.most = 2
    async with harness.running():
        await harness.settle()
    assert sorted(harness.vectors.stored) == list("abcdefg")
    assert harness.poisoned == []


async def test_a_device_that_fails_on_everything_makes_nobody_poison(harness: Harness) -> None:
    harness.see("a", "e")
    harness.encoder.most = 0
    async with harness.running():
        while harness.encoder.n_refused < 3:
            await asyncio.sleep(0)
        assert len(harness.dirty) == 1
        harness.encoder.most = 100
        await harness.settle()
    assert sorted(harness.vectors.stored) == ["a"]
    assert harness.poisoned == []


async def test_a_device_that_is_gone_is_not_asked_for_every_window(harness: Harness) -> None:
    for i in range(512):
        harness.see(f"u{i}", "e")
    harness.encoder.most = 0
    async with harness.running():
        while harness.batches.stuck == "":
            await asyncio.sleep(0)
        assert harness.batches.away == "", "a watchdog must not wait for a service"
        # Halves down to one window, and ours that must succeed.
        assert harness.encoder.n_refused == 11
        harness.encoder.most = 1_000
        await harness.settle()
    assert len(harness.vectors.stored) == 512


async def test_a_marker_that_refuses_is_handed_on(harness: Harness) -> None:
    harness.see("u", "a")
    marker = Marker(subject_hash("", "u"), T0, Token(0, 5, 1), 1)
    harness.vectors.markers[marker.subject_hash] = marker
    async with harness.running():
        await harness.settle()
    assert [refusal.by for refusal in harness.refused] == [marker]
    assert harness.vectors.stored == {}


async def test_an_upsert_whose_worker_was_stopped_since_is_not_announced(harness: Harness) -> None:
    harness.feed.lease_s = 0
    harness.see("u", "a")
    async with harness.running():
        await harness.settle()
        harness.feed.lease_s = 60
        while not harness.outbox.sent:
            await asyncio.sleep(0)
    # Encoded once more, under the same token, and announced only then.
    assert harness.encoder.batches == [["u"], ["u"]]
    assert len(harness.outbox.sent) == 1


async def test_who_is_forgotten_before_the_announcement_is_not_announced(harness: Harness) -> None:
    harness.see("u", "a")
    harness.see("v", "a")
    harness.see("w", "a")
    original, tombstone = harness.vectors.upsert, asyncio.Event()

    async def upsert(updates: Sequence[VectorUpdate]) -> list[Token | Marker | None]:
        answers = await original(updates)
        if not tombstone.is_set():
            # The whole of it happens before the micro-batch hears from the store.
            harness.windows.partition(0).forget("u", T0, generation=1)
            await harness.feed.forget("u")
            tombstone.set()
        return answers

    harness.vectors.upsert = upsert  # type: ignore[method-assign]
    async with harness.running():
        await harness.settle()
        await harness.feed.settled()
    sent = [(record.key, record.value is None) for record in harness.outbox.sent]
    assert sent == [(b"u", True), (b"v", False), (b"w", False)]


async def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(harness: Harness) -> None:
    attempts = 0

    def fail() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            assert harness.batches.away == "Redis is away"
        if attempts < 3:
            raise ServiceUnavailable("Redis is away")

    harness.vectors.fail = fail
    harness.see("u", "a")
    async with harness.running():
        await harness.settle()
        assert harness.batches.away == ""
    assert attempts == 3
    assert "u" in harness.vectors.stored


async def test_a_higher_revision_of_our_own_generation_is_of_another_past(harness: Harness) -> None:
    harness.see("u", "a")
    async with harness.running():
        await harness.settle()
        newer = harness.vectors.stored["u"]
        token = Token(0, 1, 99)
        harness.vectors.stored["u"] = msgspec.structs.replace(
            newer, vector=msgspec.structs.replace(newer.vector, token=token)
        )
        harness.dirty.mark("u", 0, None)
        await harness.settle()
    assert [refusal.by for refusal in harness.refused] == [token]


async def test_a_higher_generation_is_reported_as_refused(harness: Harness) -> None:
    harness.see("u", "a")
    async with harness.running():
        await harness.settle()
        held = harness.vectors.stored["u"]
        harness.vectors.stored["u"] = msgspec.structs.replace(
            held, vector=msgspec.structs.replace(held.vector, token=Token(0, 7, 0))
        )
        harness.see("u", "b")
        await harness.settle()
    assert [(r.job.mark.subject_id, r.by) for r in harness.refused] == [("u", (0, 7, 0))]


async def test_an_item_that_is_missing_marks_the_window_until_it_comes(harness: Harness) -> None:
    harness.see("u", "a", item_id="new")
    async with harness.running():
        await harness.settle()
        assert harness.windows.partition(0).window("u").unresolved
        harness.items.items["new"] = harness.items.items["i"]
        harness.dirty.mark("u", 0, None)
        await harness.settle()
        assert not harness.windows.partition(0).window("u").unresolved


async def test_users_of_a_partition_that_is_gone_are_let_go(harness: Harness) -> None:
    harness.see("u", "a")
    del harness.windows.partitions[0]
    async with harness.running():
        await harness.settle()
    assert harness.vectors.stored == {}
