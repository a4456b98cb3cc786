"""What is noted of folded events, what is passed over, and how the catalogue is followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from interest import metrics as m
from interest.errors import ServiceUnavailable
from interest.event import Event, EventType
from interest.item import EncodedItem
from interest.ports import ItemLookup
from interest.window import WindowLimits
from interest_cli.replay_quality import QualityCounts
from streams import live_quality
from streams.live_quality import LiveQuality
from streams.partitions import Partition
from tests.unit.streams.fakes import T0, CountingEncoder, Items, empty_partition

ITEMS = ("i", "j")


def event(number: int, user: str = "u", item: str = "i", kind: str = "click") -> Event:
    return Event(
        event_id=f"{user}-{number}",
        user_id=user,
        type=EventType(kind),
        ts=T0 + number,
        item_id=item,
    )


class Away(Items):
    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        raise ServiceUnavailable("Qdrant is away")


class Harness:
    def __init__(self, lookup: ItemLookup | None = None, share: float = 1.0) -> None:
        self.metrics, self.encoder = QualityCounts(), CountingEncoder()
        self._device = ThreadPoolExecutor(1)
        self.quality = LiveQuality(
            share=share, load=1.0, limits=WindowLimits(), bad_rating=2.0, encoder=self.encoder,
            device=self._device, lookup=lookup or Items(*ITEMS), known_items=ITEMS,
            metrics=self.metrics,
        )  # fmt: skip
        self.quality.items_changed(ITEMS, ())
        self.partition: Partition = empty_partition(0)
        self.partition.on_folded = self.quality.note

    def see(self, *events: Event) -> None:
        """Read some events of one user, and fold them together."""
        self.partition.unfolded[events[0].user_id] = list(events)
        self.partition.reads(1, T0, {})
        self.partition.fold(events[0].user_id)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.quality.run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._device.shutdown()

    async def settle(self) -> None:
        async with asyncio.timeout(5):
            while self.quality.pending:
                await asyncio.sleep(0)

    def skipped(self) -> dict[str, int]:
        return {
            label: n for (name, label), n in self.metrics.counted.items()
            if name == m.QUALITY_SKIPPED
        }  # fmt: skip

    def scored(self) -> dict[str, int]:
        return {
            label: n for (name, label), n in self.metrics.counted.items()
            if name == m.QUALITY_EVENTS
        }  # fmt: skip


async def test_events_that_are_folded_together_are_scored_one_by_one() -> None:
    harness = Harness()
    harness.see(event(1), event(2), event(3, item="j"), event(4, kind="remove"))
    harness.see(event(5))
    async with harness.running():
        await harness.settle()
    assert harness.scored() == {"repeated": 2, "new": 1}
    assert harness.skipped() == {"cold": 1}
    # One window at a time, so that nobody else's changes the rounding.
    assert harness.encoder.batches == [["u"]] * 3


async def test_events_of_a_user_who_waits_share_one_note() -> None:
    harness = Harness()
    for n in range(50):
        harness.see(event(n))
    assert len(harness.quality._waiting) == 1
    # The changed window is another object: its events may not be folded onto the old one.
    harness.partition.forget("u", T0 + 10, 1)
    harness.see(event(100))
    assert len(harness.quality._waiting) == 2
    async with harness.running():
        await harness.settle()
    assert sum(harness.scored().values()) == 50
    assert harness.quality._last == {}


async def test_what_is_too_much_is_passed_over_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_quality, "MAX_WAITING", 3)
    harness = Harness()
    harness.see(event(1), event(2))
    harness.see(event(1, "v"), event(2, "v"))
    harness.see(event(3))
    harness.see(event(4))
    async with harness.running():
        await harness.settle()
        assert harness.skipped() == {"cold": 1, "overload": 3}
        # What was passed over is in the window all the same.
        harness.see(event(5))
        await harness.settle()
    assert harness.scored() == {"repeated": 3}
    assert harness.encoder.batches == [["u"]] * 3
    assert len(harness.partition.window("u")) == 5


async def test_a_window_that_the_encoder_does_not_take_hurts_no_other() -> None:
    harness = Harness()
    harness.encoder.poison = lambda window: window.subject_id == "u"
    harness.see(event(1), event(2))
    harness.see(event(1, "v"), event(2, "v"))
    async with harness.running():
        await harness.settle()
    assert harness.scored() == {"repeated": 1}
    assert harness.skipped() == {"cold": 2, "failed": 1}


async def test_a_store_that_is_away_is_not_waited_for() -> None:
    harness = Harness(Away(*ITEMS))
    harness.see(event(1), event(2))
    async with harness.running():
        await harness.settle()
    assert harness.scored() == {}
    assert harness.skipped() == {"failed": 2}


def test_users_out_of_the_share_are_not_noted() -> None:
    harness = Harness(share=0.0)
    harness.see(event(1), event(2))
    assert not harness.quality.pending


async def test_an_item_that_is_gone_leaves_the_sample_and_one_that_comes_enters_it() -> None:
    asked: list[list[str]] = []

    class Recorded(Items):
        async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
            asked.append(sorted(item_ids))
            return await super().fetch(item_ids)

    harness = Harness(Recorded("i", "j", "k"))
    async with harness.running():
        for number, (put, gone) in enumerate([((), ()), (("k",), ()), ((), ("j",)), ((), ())]):
            harness.quality.items_changed(put, gone)
            harness.see(event(number))
            await harness.settle()
    assert [ids for ids in asked if ids != ["i"]] == [["i", "j"], ["i", "j", "k"], ["i", "k"]]
