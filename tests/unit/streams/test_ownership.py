"""Who owns a partition, and what is renewed when it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from interest.event import decode_event
from interest.fold import fold
from interest.ports import VectorUpdate
from interest.vector import Token, UserVector
from interest.window import WindowLimits
from interest.window_bytes import window_from_bytes
from streams.consumer_thread import SourceOffsets
from streams.dirty import DirtyUsers, Mark
from streams.items_feed import KnownItem
from streams.ownership import Ownership
from streams.progress import Progress
from streams.window_records import Held
from tests.unit.streams.fakes import RECORDS, T0, Outbox, Vectors, Windows, event_json

SOURCE = TP("behaviours", 0)


class Consumer:
    """Answers a commit as the test says."""

    def __init__(self) -> None:
        self.answer: bool | Exception = True

    def assignment(self) -> set[TP]:
        return {SOURCE}

    async def source_offsets(self, tps: Sequence[TP]) -> dict[TP, SourceOffsets]:
        return {tp: SourceOffsets(0, 99, 7, True) for tp in tps}

    def _is_changelog_tp(self, tp: TP) -> bool:
        return False

    async def commit_offsets(self, offsets: Mapping[TP, int], generation: int) -> bool:
        assert (dict(offsets), generation) == ({SOURCE: 7}, 3)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Harness:
    def __init__(self) -> None:
        self.windows, self.dirty, self.progress = Windows(), DirtyUsers(), Progress()
        self.vectors, self.outbox, self.consumer = Vectors(), Outbox(), Consumer()
        self.progress.start(3)
        self.ownership = Ownership(
            model_id="m", records=RECORDS, windows=self.windows, dirty=self.dirty,  # type: ignore[arg-type]
            progress=self.progress, vectors=self.vectors, outbox=self.outbox,  # type: ignore[arg-type]
        )  # fmt: skip
        self.partition = self.windows.partition(0)
        event = decode_event(event_json("e"))
        window = fold(self.partition.window("u"), [event], WindowLimits())
        self.partition.replace(window, generation=3)

    async def reconcile(self) -> int:
        return await self.ownership.reconcile(self.partition, {})

    def in_flight(self) -> Mark:
        self.dirty.mark("u", 0, None)
        return self.dirty.take(lambda mark: 1, 9)[0]

    async def refuse(self, stored: Token) -> None:
        refusals = [(self.in_flight(), stored)]
        await self.ownership.refused(self.consumer, refusals)  # type: ignore[arg-type]

    def store(self, token: Token, encode_time_ms: int) -> None:
        vector = UserVector(
            user_id="u", model_id="m", token=token, event_time_ms=T0, n_events=1,
            encode_time_ms=encode_time_ms, vectors=np.array([[1.0, 0.0]], np.float32),
        )  # fmt: skip
        self.vectors.stored["u"] = VectorUpdate(vector, b"\x90")


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_an_owner_outbids_in_the_changelog_first(harness: Harness) -> None:
    await harness.refuse(Token(4, 900, 1))
    [record] = harness.outbox.sent
    window, generation, _ = window_from_bytes(record.value or b"")
    assert (window.era, generation) == (5, 3)
    assert harness.partition.held["u"].token > Token(4, 900, 1)
    assert len(harness.dirty.take(lambda mark: 1, 9)) == 1, "and tries again"


@pytest.mark.parametrize("answer", [False, KafkaConnectionError("away")])
async def test_who_may_have_lost_the_partition_waits_and_writes_nothing(
    harness: Harness, answer: bool | Exception
) -> None:
    harness.consumer.answer = answer
    await harness.refuse(Token(4, 900, 1))
    assert harness.outbox.sent == []
    assert harness.partition.held["u"].token == (0, 3, 1)
    assert harness.dirty.take(lambda mark: 1, 9) == [], "not at once"
    await asyncio.wait_for(harness.dirty.wait(), 5)


@pytest.mark.parametrize(
    ("token", "encoded_ms", "announced_ms", "renewed"),
    [
        (Token(0, 3, 1), T0, T0 - 60_000, False),
        (Token(0, 3, 0), T0, T0 - 60_000, True),
        (Token(0, 2, 9), T0, T0 - 60_000, True),
        (Token(0, 4, 0), T0, T0 - 60_000, False),
        (Token(0, 3, 1), T0, T0 + 1, True),
        (Token(0, 3, 1), T0, T0 - 1_000, True),
    ],
)
async def test_what_is_older_than_the_window_or_an_item_in_it_is_renewed(
    harness: Harness, token: Token, encoded_ms: int, announced_ms: int, renewed: bool
) -> None:
    harness.store(token, encoded_ms)
    known = {"i": KnownItem(b"", announced_ms), "other": KnownItem(b"", T0 * 2)}
    assert await harness.ownership.reconcile(harness.partition, known) == renewed


async def test_a_vector_that_is_missing_is_renewed(harness: Harness) -> None:
    assert await harness.ownership.reconcile(harness.partition, {}) == 1


async def test_a_zombies_record_at_the_end_of_the_changelog_is_written_over(
    harness: Harness,
) -> None:
    harness.partition.changed.clear()
    old = msgspec.structs.replace(harness.partition.window("u").with_rows(()), revision=9)
    harness.partition.restore(Held(old, 2))
    assert len(harness.partition.window("u")) == 1
    assert "u" in harness.partition.changed, "the next checkpoint writes ours again"


async def test_an_older_copy_of_the_store_brings_nobody_back_who_was_forgotten(
    harness: Harness,
) -> None:
    # Restored while no worker ran: nobody noticed that its life is another.
    harness.store(Token(0, 3, 1), T0)
    marker = harness.partition.forget("u", T0 + 1, generation=3)
    harness.partition.adopt("u", msgspec.structs.replace(marker, place=1), 3)
    await harness.reconcile()
    assert harness.vectors.stored == {}
    assert [m.token for m in harness.vectors.markers.values()] == [marker.token]


async def test_asking_who_owns_waits_for_a_commit_that_is_under_way(harness: Harness) -> None:
    """Behind it, the commit that moves nothing would move back."""
    async with harness.progress.committing:
        asking = asyncio.create_task(harness.ownership.is_owner(harness.consumer))  # type: ignore[arg-type]
        for _ in range(10):
            await asyncio.sleep(0)
        harness.progress.committed[SOURCE] = 7
        assert not asking.done()
    assert await asyncio.wait_for(asking, 5)
