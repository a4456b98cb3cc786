"""Poison events leave their window, and only they."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from interest.errors import EncoderUnavailable
from interest.event import decode_event, id_hash
from interest.fold import fold
from interest.forgetting import subject_hash
from interest.metrics import NoMetrics
from interest.settings import Settings
from interest.window import BehaviourWindow, WindowLimits
from streams.dirty import DirtyUsers
from streams.encoding import Isolated, WindowEncoding
from streams.letters import read_letter
from streams.micro_batches import Poisoned
from streams.poison import Poison
from streams.progress import Progress
from streams.topics import TopicNames
from streams.upserts import Job
from streams.window_records import Held, event_id_of
from tests.unit.streams.fakes import (
    T0,
    CountingEncoder,
    KafkaRecord,
    Outbox,
    Windows,
    event_json,
)

LIMITS = WindowLimits(max_events=4)
BAD = {id_hash(f"bad{i}") for i in range(10)}


def poisonous(window: BehaviourWindow) -> bool:
    return not BAD.isdisjoint(window.id_hashes())


class Harness:
    def __init__(self) -> None:
        self.windows, self.dirty, self.progress = Windows(), DirtyUsers(), Progress()
        self.progress.start(1)
        self.seen: dict[bytes, str] = {}
        self.outbox, self.encoder = Outbox(), CountingEncoder()
        self.encoder.poison = poisonous
        self.executor = ThreadPoolExecutor(1)
        self.partition = self.windows.partition(0)
        self.poison = Poison(
            names=TopicNames.of(Settings()), limits=LIMITS,
            encoding=WindowEncoding(self.encoder, self.executor, LIMITS),
            windows=self.windows, dirty=self.dirty, progress=self.progress,  # type: ignore[arg-type]
            outbox=self.outbox, clock=lambda: T0, metrics=NoMetrics(),  # type: ignore[arg-type]
        )  # fmt: skip

    def see(self, *event_ids: str) -> Held:
        events = [decode_event(event_json(e, ts=T0 + int(e[-1]))) for e in event_ids]
        self.partition.replace(fold(self.partition.window("u"), events, LIMITS), generation=1)
        held = self.partition.held["u"]
        held.note(None, events)
        self.seen = {**self.seen, **{id_hash(e): e for e in event_ids}}
        return held

    async def remove(self, held: Held) -> None:
        self.dirty.mark("u", 0, T0)
        [mark] = self.dirty.take(lambda mark: 1, 9)
        await self.poison.remove(Poisoned(Job(mark, held), ValueError("too long"), {}))

    @property
    def event_ids(self) -> list[str]:
        return [self.seen[event.id_hash] for event in self.partition.window("u").events]


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_what_poison_pushed_out_comes_back_and_innocents_stay(harness: Harness) -> None:
    held = harness.see("a1", "b2", "c3", "d4")
    held.sound = held.window
    held = harness.see("bad5", "e6", "bad7")
    assert harness.event_ids == ["d4", "bad5", "e6", "bad7"]
    await harness.remove(held)
    assert harness.event_ids == ["b2", "c3", "d4", "e6"]
    letters = [
        read_letter(KafkaRecord("dead-letters", 0, 0, r.key, r.value, headers=r.headers))
        for r in harness.outbox.sent
    ]
    assert [letter.last.reason for letter in letters] == ["poison", "poison"]
    assert [decode_event(letter.value).event_id for letter in letters] == ["bad5", "bad7"]
    assert "ValueError: too long" in letters[0].last.detail
    # Encoded again under a higher token, and written to the changelog.
    assert harness.partition.held["u"].token == (0, 1, 3)
    assert "u" in harness.partition.changed
    assert [mark.subject_id for mark in harness.dirty.take(lambda mark: 1, 9)] == ["u"]


async def test_what_poison_pushed_out_before_anything_of_it_was_encoded_comes_back(
    harness: Harness,
) -> None:
    held = harness.see("a1", "b2")
    held.sound, held.fresh = held.window, ()
    harness.see("c3")
    harness.see("bad5", "bad6", "bad7")
    # Nothing of a full window gives way to an event that is older than all of it.
    harness.see("bad8")
    harness.see("d4")
    assert harness.event_ids == ["bad5", "bad6", "bad7", "bad8"]
    await harness.remove(msgspec.structs.replace(harness.partition.held["u"]))
    assert harness.event_ids == ["a1", "b2", "c3", "d4"]
    assert len(harness.outbox.sent) == 4
    assert [event_id_of(e) for e in harness.partition.held["u"].fresh] == ["c3", "d4"]


async def test_poison_that_other_poison_pushed_out_is_a_dead_letter_too(harness: Harness) -> None:
    harness.see("bad1", "a2", *(f"bad{i}" for i in range(3, 9)))
    await harness.remove(harness.partition.held["u"])
    assert harness.event_ids == ["a2"]
    assert len(harness.outbox.sent) == 7


async def test_without_a_known_sound_window_each_event_is_tried(harness: Harness) -> None:
    await harness.remove(harness.see("a1", "bad2", "c3"))
    assert harness.event_ids == ["a1", "c3"]


async def test_events_that_came_meanwhile_stay(harness: Harness) -> None:
    held = harness.see("a1", "bad2")
    job_held = msgspec.structs.replace(held, sound=None)
    harness.see("c3")
    await harness.remove(job_held)
    assert harness.event_ids == ["a1", "c3"]


async def test_a_person_forgotten_meanwhile_does_not_come_back(harness: Harness) -> None:
    held = harness.see("a1", "b2", "c3", "d4")
    held.sound = held.window
    held = harness.see("bad5", "e6")
    job_held = msgspec.structs.replace(held)
    harness.partition.forget("u", T0 + 5, generation=1)
    await harness.remove(job_held)
    assert harness.event_ids == ["e6"]
    assert harness.partition.marker("u") is not None
    assert subject_hash("", "u") in harness.partition.markers


async def test_a_device_that_stops_meanwhile_makes_nothing_poison(harness: Harness) -> None:
    held = harness.see("a1", "bad2", "c3")
    harness.encoder.most = 0
    with pytest.raises(EncoderUnavailable):
        await harness.remove(held)
    assert harness.event_ids == ["a1", "bad2", "c3"]
    assert harness.outbox.sent == []


async def test_poison_of_a_person_forgotten_meanwhile_leaves_no_letter(harness: Harness) -> None:
    held = harness.see("a1", "bad2", "bad7")
    original = harness.poison._encoding.isolate

    async def isolate(*args: Any) -> Isolated:
        isolated = await original(*args)
        harness.partition.forget("u", T0 + 5, generation=1)
        return isolated

    harness.poison._encoding.isolate = isolate  # type: ignore[method-assign,assignment]
    await harness.remove(held)
    assert len(harness.outbox.sent) == 1
    assert b"bad7" in (harness.outbox.sent[0].value or b"")
    assert harness.event_ids == []


async def test_poison_of_which_the_id_is_not_known_any_more_is_named_by_its_hash(
    harness: Harness,
) -> None:
    held = harness.see("a1", "bad2")
    held.fresh = ()
    await harness.remove(held)
    [letter] = harness.outbox.sent
    event = decode_event(letter.value)
    assert event.event_id == f"#{id_hash('bad2').hex()}"
    assert (event.user_id, event.ts, event.item_id) == ("u", T0 + 2, "i")
