"""From dirty users to readable vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec
import pytest

from interest.bundle import BundleConfig, ModelBundle, TextModel
from interest.errors import ServiceUnavailable
from interest.event import decode_event
from interest.metrics import NoMetrics
from interest.vector import Token
from interest.window import WindowLimits, fold
from streams.dirty import DirtyUsers, Mark
from streams.micro_batches import Announcement, MicroBatches
from tests.unit.streams.fakes import (
    T0,
    CountingEncoder,
    Items,
    Outbox,
    Vectors,
    Windows,
    event_json,
)

BUNDLE = ModelBundle(
    config=BundleConfig(
        user_encoder="decay", text_model=TextModel(reference="r", fingerprint="f", dim=2)
    )
)


class Harness:
    def __init__(self) -> None:
        self.windows, self.dirty, self.vectors = Windows(), DirtyUsers(), Vectors()
        self.encoder, self.outbox, self.items = CountingEncoder(), Outbox(), Items("i")
        self.refused: list[tuple[Mark, Token]] = []
        self._executor = ThreadPoolExecutor(1)

    async def _on_refused(self, refusals: Sequence[tuple[Mark, Token]]) -> None:
        self.refused += refusals
        self.dirty.confirm([mark for mark, _ in refusals])

    def see(self, user: str, *event_ids: str, item_id: str = "i") -> None:
        partition = self.windows.partition(0)
        events = [decode_event(event_json(e, user, item_id=item_id)) for e in event_ids]
        partition.replace(fold(partition.window(user), events, WindowLimits()), generation=1)
        self.dirty.mark(user, 0, T0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        batches = MicroBatches(
            bundle=BUNDLE, encoder=self.encoder, windows=self.windows, dirty=self.dirty,  # type: ignore[arg-type]
            lookup=self.items, vectors=self.vectors, outbox=self.outbox,  # type: ignore[arg-type]
            feed_topic="user-vectors", budget_tokens=1_000, executor=self._executor,
            clock=lambda: T0 + 5, metrics=NoMetrics(), source_offset=lambda n: 41,
            refused=self._on_refused,
        )  # fmt: skip
        task = asyncio.create_task(batches.run())
        yield
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
    assert [recent.item_id for recent in stored.recent] == ["i", "i"]


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
    assert (record.topic, record.key) == ("user-vectors", b"u")
    told = msgspec.json.decode(record.value or b"", type=Announcement)
    assert (told.user_id, told.token, told.event_time_ms) == ("u", (0, 1, 1), T0)


async def test_a_window_that_cannot_be_encoded_is_isolated(harness: Harness) -> None:
    for user in "abcdefg":
        harness.see(user, "e")
    harness.encoder.poison = lambda window: window.subject_id == "c"
    harness.encoder.nan = lambda window: window.subject_id == "f"
    async with harness.running():
        await harness.settle()
    assert sorted(harness.vectors.stored) == ["a", "b", "d", "e", "g"]


async def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(harness: Harness) -> None:
    attempts = 0

    def fail() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise ServiceUnavailable("Redis is away")

    harness.vectors.fail = fail
    harness.see("u", "a")
    async with harness.running():
        await harness.settle()
    assert attempts == 3
    assert "u" in harness.vectors.stored


async def test_a_higher_revision_of_our_own_counts_as_done(harness: Harness) -> None:
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
    assert harness.refused == []
    assert harness.vectors.stored["u"].vector.token == token


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
    assert [(mark.subject_id, stored) for mark, stored in harness.refused] == [("u", (0, 7, 0))]


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
