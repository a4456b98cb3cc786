"""Events that no encode takes, users who send too much, users who are gone for long."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from interest.event import id_hash
from interest.item import EncodedItem
from interest.metrics import NoMetrics
from interest.partition import partition_of
from interest.ports import UserEncoder
from interest.window import BehaviourWindow
from interest_cli.wiring import open_worker
from streams.topics import ensure_topics
from streams.worker import Worker
from tests.stream.conftest import T0, Harness, event, eventually, item
from tests.stream.test_worker import publish


class Allergic:
    """The real encoder, which raises on one text and gives NaN on another."""

    def __init__(self, inner: UserEncoder) -> None:
        self._inner = inner
        self.n_encodes = 0

    @property
    def dim(self) -> int:
        return self._inner.dim

    def n_tokens(self, window: BehaviourWindow) -> int:
        return self._inner.n_tokens(window)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        self.n_encodes += 1
        texts = [{event.text for event in window.events} for window in windows]
        if any("raise" in found for found in texts):
            raise RuntimeError("device-side assert triggered")
        rows = self._inner.encode(windows, items)
        for i, found in enumerate(texts):
            if "nan" in found:
                rows[i] = np.nan
        return rows


@asynccontextmanager
async def allergic_worker(harness: Harness) -> AsyncIterator[tuple[Worker, Allergic]]:
    encoder = Allergic(harness.loaded.user_encoder)
    loaded = harness.loaded._replace(user_encoder=encoder)
    async with open_worker(harness.settings, loaded, NoMetrics()) as (worker, _, _):
        yield worker, encoder


async def started(harness: Harness) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))


def review(event_id: str, user: str, text: str, ts: int) -> bytes:
    return event(event_id, user, type="review", text=text, ts=ts)


async def test_poison_becomes_dead_letters_and_everything_else_vectors(harness: Harness) -> None:
    await started(harness)
    users = [f"u{i}" for i in range(6)]
    async with allergic_worker(harness) as (worker, _):
        await publish(
            harness,
            "behaviours",
            *((u, review(f"good-{u}", u, "lovely", T0 + i)) for i, u in enumerate(users)),
            ("u1", review("bad-1", "u1", "raise", T0 + 10)),
            ("u2", review("bad-2", "u2", "nan", T0 + 11)),
            ("u1", review("late-good", "u1", "fine", T0 + 12)),
            ("u3", review("huge", "u3", "x" * 1_000_000, T0 + 13)),
            ("u9", review("bad-9", "u9", "raise", T0 + 14)),
        )

        async def through() -> bool:
            return await worker.idle() and not worker.progress.pending()

        await eventually(through)
        for user in users:
            state = await harness.user(user)
            assert state.vector.n_events == (2 if user == "u1" else 1)
        state = await harness.user("u9")
        assert (state.vector.n_events, state.vector.is_cold) == (0, True)
    letters = await harness.read("dead-letters")
    reasons = [dict(letter.headers)["reason"] for letter in letters]
    assert sorted(reasons) == [b"poison"] * 3 + [b"schema"]
    ids = {
        msgspec.json.decode(letter.value)["event_id"]
        for letter, reason in zip(letters, reasons, strict=True)
        if reason == b"poison"
    }
    assert ids == {"bad-1", "bad-2", "bad-9"}
    # The removal is in the changelog: a fresh worker with a sound encoder does not see them.
    async with harness.worker() as worker:
        await harness.idle(worker)
        held = {
            e.id_hash
            for partition in worker.windows.partitions.values()
            for window in partition.held.values()
            for e in window.window.events
        }
        assert held == {id_hash(e) for e in ("late-good", *(f"good-{u}" for u in users))}


async def test_a_hot_user_costs_few_encodes_and_starves_nobody(harness: Harness) -> None:
    # Live quality has encodes of its own, which the cap does not count.
    harness.change(user_encodes_per_s=2.0, live_quality_share=0.0)
    await started(harness)
    n = harness.settings.partitions
    hot = "hot"
    calm = next(u for u in map(str, range(99)) if partition_of(u, n) != partition_of(hot, n))
    async with allergic_worker(harness) as (worker, encoder):
        began = time.monotonic()
        for round_ in range(5):
            await publish(
                harness,
                "behaviours",
                *((hot, event(f"{round_}-{i}", hot, ts=T0 + i)) for i in range(100)),
            )
        await publish(harness, "behaviours", (calm, event("calm", calm)))
        await eventually(lambda: harness.user(calm))
        await harness.idle(worker)
        seconds = time.monotonic() - began
        state = await harness.user(hot)
        assert state.vector.n_events == 50
        # A burst, two a second, and the calm user's.
        assert encoder.n_encodes <= 7 + 2 * seconds + 2
        assert worker.dirty.n_suppressed > 0


async def test_idle_users_leave_memory_and_changelog_and_come_back(harness: Harness) -> None:
    await started(harness)
    async with harness.worker() as worker:
        await publish(harness, "behaviours", ("u", event("old", "u", ts=T0)))
        first = await eventually(lambda: harness.user("u"))
        await harness.idle(worker)
        [partition] = [p for p in worker.windows.partitions.values() if "u" in p.held]
        partition.held["u"].touched_ms = T0  # 2023
        assert await worker.parts.idle_users.evict(partition) == 1
        await worker.parts.checkpoint.write(partition)
        assert worker.windows.n_windows() == 0
        assert await harness.user("u") is not None

        async def back(event_id: str, ts: int) -> Any:
            await publish(harness, "behaviours", ("u", event(event_id, "u", ts=ts)))

            async def newer() -> Any:
                state = await harness.user("u")
                return state if state.vector.event_time_ms == ts else None

            return await eventually(newer)

        later = T0 + 90 * 86_400_000
        state = await back("new", later)
        assert state.vector.n_events == 1
        assert state.vector.token > first.vector.token
        await harness.idle(worker)
    async with harness.worker() as worker:
        await harness.idle(worker)
        [window] = [h.window for p in worker.windows.partitions.values() for h in p.held.values()]
        assert [e.id_hash for e in window.events] == [id_hash("new")]


@pytest.mark.parametrize("days", [29.0])
async def test_idle_days_shorter_than_a_window_are_refused(harness: Harness, days: float) -> None:
    from interest.errors import BadInput

    harness.change(idle_days=days)
    with pytest.raises(BadInput, match="INTEREST_IDLE_DAYS"):
        async with harness.worker():
            pytest.fail("it must not start")
