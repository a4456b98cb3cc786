"""Stages of micro-batches that overlap, within bounds, and leave nobody behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from interest.forgetting import Marker
from interest.ports import VectorUpdate
from interest.vector import Token
from tests.unit.streams.fakes import T0
from tests.unit.streams.test_micro_batches import Harness


class Gate:
    """Holds upserts until it is opened; tells which users each had."""

    def __init__(self, harness: Harness) -> None:
        self._upsert = harness.vectors.upsert
        self.opened = asyncio.Event()
        self.asked: list[list[str]] = []
        harness.vectors.upsert = self.upsert  # type: ignore[method-assign]

    async def upsert(self, updates: Sequence[VectorUpdate]) -> list[Token | Marker | None]:
        self.asked.append([update.vector.user_id for update in updates])
        await self.opened.wait()
        return await self._upsert(updates)


@pytest.fixture
def harness() -> Harness:
    return Harness(budget_tokens=2)


async def held_up(harness: Harness) -> None:
    """Return when three batches came from the device, and whatever could follow has."""
    while len(harness.encoder.batches) < 3:
        await asyncio.sleep(0)
    await turns()


async def turns() -> None:
    """Let everything run that waits for nothing but its turn."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_an_upsert_overlaps_the_encode_of_the_next_batch(harness: Harness) -> None:
    gate = Gate(harness)
    for user in "abcd":
        harness.see(user, "e")
    async with harness.running():
        while len(harness.encoder.batches) < 2:
            await asyncio.sleep(0)
        assert harness.vectors.stored == {}
        assert gate.asked == [["a", "b"]]
        gate.opened.set()
        await harness.settle()
    assert harness.encoder.batches == [["a", "b"], ["c", "d"]]
    assert gate.asked == [["a", "b"], ["c", "d"]]


async def test_a_store_that_hangs_stops_the_device_and_who_waits_waits_once(
    harness: Harness,
) -> None:
    gate = Gate(harness)
    users = [f"u{i:02}" for i in range(40)]
    for user in users:
        harness.see(user, "e")
    async with harness.running():
        await held_up(harness)
        # One is upserted, one waits for that, one waits on the device.
        assert len(harness.encoder.batches) == 3
        assert len(harness.dirty._in_flight) <= 4 * 2
        for user in users:
            harness.see(user, "f")
        assert len(harness.dirty) <= len(users) + 4 * 2
        gate.opened.set()
        await harness.settle()
    assert all(len(held.recent) > 0 for held in harness.vectors.stored.values())
    assert {held.vector.n_events for held in harness.vectors.stored.values()} == {2}


async def test_a_user_is_never_encoded_twice_at_once(harness: Harness) -> None:
    gate = Gate(harness)
    harness.see("hot", "e0")
    async with harness.running():
        while not gate.asked:
            await asyncio.sleep(0)
        for i in range(1, 20):
            harness.see("hot", f"e{i}")
            await turns()
        assert harness.encoder.batches == [["hot"]], "the first is not readable yet"
        gate.opened.set()
        await harness.settle()
    assert harness.encoder.batches == [["hot"], ["hot"]]
    assert harness.vectors.stored["hot"].vector.n_events == 20


async def test_nobody_starves_beside_users_who_never_rest(harness: Harness) -> None:
    """Who is dirty again stands behind everybody who was dirty before."""
    users = [f"u{i}" for i in range(10)]
    for user in users:
        harness.see(user, "e")
    n_upserts = 0

    def busy() -> None:
        nonlocal n_upserts
        n_upserts += 1
        if n_upserts <= 5:
            for user in ("u0", "u1"):
                harness.see(user, f"more-{n_upserts}")

    harness.vectors.fail = busy
    async with harness.running():
        await harness.settle()
    first_ten = [user for batch in harness.encoder.batches for user in batch][:10]
    assert first_ten == users


async def test_a_partition_that_leaves_takes_its_vectors_along(harness: Harness) -> None:
    gate = Gate(harness)
    for user in "abcdef":
        harness.see(user, "e")
    async with harness.running():
        await held_up(harness)
        harness.dirty.drop_partition(0)
        gate.opened.set()
        await turns()
        assert len(harness.dirty) == 0
    assert gate.asked == [["a", "b"]], "what was on the way when it left; Redis judges its token"


async def test_whoever_is_on_the_way_when_it_ends_waits_again(harness: Harness) -> None:
    Gate(harness)
    users = [f"u{i}" for i in range(20)]
    for user in users:
        harness.see(user, "e")
    async with harness.running():
        await held_up(harness)
    left = harness.dirty.take(lambda mark: 1, 100)
    assert [mark.subject_id for mark in left] == users
    assert {mark.since_ms for mark in left} == {T0}


async def test_a_fault_of_ours_ends_it_with_that_fault(harness: Harness) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    harness.vectors.fail = fail
    for user in "abcdef":
        harness.see(user, "e")
    async with harness.running() as running:
        with pytest.raises(ZeroDivisionError):
            await running
    assert [mark.subject_id for mark in harness.dirty.take(lambda mark: 1, 9)] == list("abcdef")


async def half_taken(harness: Harness) -> None:
    """Return while a batch is being taken, the loop being served in between."""
    while not 0 < len(harness.dirty._in_flight) < 60:
        assert not harness.encoder.batches
        await asyncio.sleep(0)


@pytest.fixture
def large() -> Harness:
    """Sixty full windows: more than are taken in one go."""
    harness = Harness(budget_tokens=10_000)
    for i in range(60):
        harness.see(f"u{i:02}", *(f"e{j}" for j in range(50)))
    return harness


async def test_a_large_batch_is_taken_in_parts_and_encoded_at_once(large: Harness) -> None:
    async with large.running():
        await half_taken(large)
        await large.settle()
    assert large.encoder.batches == [[f"u{i:02}" for i in range(60)]]


async def test_who_is_taken_waits_again_where_it_ends_before_the_rest_is(large: Harness) -> None:
    async with large.running():
        await half_taken(large)
    assert not large.dirty._in_flight
    assert len(large.dirty._waiting[0]) == 60
    assert large.encoder.batches == []
