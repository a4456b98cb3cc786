"""The catalogue agent: what is encoded and what is not, and a store that is away."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from interest import metrics as m
from interest.errors import CorruptRecord, ServiceUnavailable
from interest.item import EncodedItem, Item, encoded_item_from_bytes, unit
from interest.metrics import NoMetrics
from interest.settings import Settings
from streams.catalogue import Catalogue
from streams.progress import Progress
from streams.topics import TopicNames
from streams.transport import Chunk
from tests.unit.streams.fakes import T0, KafkaRecord, Outbox, chunk, sought


class Encoder:
    """A vector that shows how long the text is; remembers what it was asked."""

    dim = 2

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        self.asked += [item.text for item in items]
        return unit(np.array([[len(item.text), 1] for item in items]))


class Store:
    shared = True

    def __init__(self) -> None:
        self.sick = asyncio.Event()
        self.well = True
        self.items: dict[str, EncodedItem] = {}
        self.corrupt = False

    def _ask(self) -> None:
        if not self.well:
            self.sick.set()
            raise ServiceUnavailable("Qdrant is away")

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        self._ask()
        if self.corrupt:
            raise CorruptRecord("no item of ours")
        return {i: self.items[i] for i in item_ids if i in self.items}

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        self._ask()
        self.items.update((encoded.item.item_id, encoded) for encoded in items)

    async def remove(self, item_ids: Sequence[str]) -> None:
        self._ask()
        for item_id in item_ids:
            self.items.pop(item_id, None)


class Counted(NoMetrics):
    def __init__(self) -> None:
        self.n: Counter[str] = Counter()

    def count(self, name: str, n: float = 1, label: str = "") -> None:
        self.n[name] += int(n)


NAMES = TopicNames.of(Settings())


class Rig:
    """An agent with stand-ins around it."""

    def __init__(self) -> None:
        self.encoder, self.store, self.outbox = Encoder(), Store(), Outbox()
        self.progress, self.metrics = Progress(), Counted()
        self.progress.start(1)
        self.catalogue = Catalogue(
            names=NAMES, model_id="m", encoder=self.encoder, store=self.store,  # type: ignore[arg-type]
            progress=self.progress, outbox=self.outbox, executor=ThreadPoolExecutor(1),  # type: ignore[arg-type]
            clock=lambda: T0, metrics=self.metrics,
        )  # fmt: skip
        self._offset = 0

    def chunk(self, *items: dict[str, Any]) -> Chunk:
        records = [
            KafkaRecord(
                NAMES.catalogue, 0, self._offset + i, item["item_id"].encode(),
                json.dumps(item).encode() if len(item) > 1 else None,
            )
            for i, item in enumerate(items)
        ]  # fmt: skip
        self._offset += len(items)
        return sought(self.progress, chunk(records))

    async def handle(self, *items: dict[str, Any]) -> None:
        await self.catalogue.handle(self.chunk(*items))

    def announced(self) -> list[EncodedItem]:
        return [encoded_item_from_bytes(sent.value) for sent in self.outbox.sent if sent.value]


def mug(**fields: Any) -> dict[str, Any]:
    return {"item_id": "mug", "title": "Mug", **fields}


async def test_a_price_changes_and_the_stored_vector_is_announced_with_it() -> None:
    rig = Rig()
    await rig.handle(mug(price=3))
    await rig.handle(mug(price=4, available=False))
    assert rig.encoder.asked == ["Mug"]
    first, second = rig.announced()
    assert second.item.price == 4
    assert not second.item.available
    np.testing.assert_array_equal(second.vector, first.vector)
    assert rig.store.items["mug"].item == second.item
    assert (rig.metrics.n[m.ITEMS], rig.metrics.n[m.ITEMS_UNCHANGED]) == (1, 1)
    assert list(rig.progress.positions.values()) == [2]


async def test_a_text_changes_and_is_encoded() -> None:
    rig = Rig()
    for item in (mug(), mug(description="blue"), mug(description="red"), mug(title="Mug\nred")):
        await rig.handle(item)
    assert rig.encoder.asked == ["Mug", "Mug\nblue", "Mug\nred"]
    assert len(rig.announced()) == 4


async def test_among_unchanged_items_only_the_others_are_encoded() -> None:
    rig = Rig()
    await rig.handle(mug(), {"item_id": "pot", "title": "Pot"})
    pot = {"item_id": "pot", "title": "Pot of tin"}
    await rig.handle(mug(price=1), pot, {"item_id": "bowl", "title": "Bowl"})
    assert rig.encoder.asked == ["Mug", "Pot", "Pot of tin", "Bowl"]
    assert {e.item.item_id: e.item.title for e in rig.store.items.values()} == {
        "mug": "Mug", "pot": "Pot of tin", "bowl": "Bowl",
    }  # fmt: skip


async def test_an_item_that_was_removed_is_encoded_when_it_comes_back() -> None:
    rig = Rig()
    for item in (mug(), {"item_id": "mug"}, mug()):
        await rig.handle(item)
    assert rig.encoder.asked == ["Mug", "Mug"]
    assert [sent.value is None for sent in rig.outbox.sent] == [False, True, False]


async def test_what_was_stored_but_not_announced_is_announced_without_encoding() -> None:
    """A worker died between the two; the next one reads the message again."""
    dead = Rig()
    await dead.handle(mug())
    rig = Rig()
    rig.store.items = dict(dead.store.items)
    await rig.handle(mug())
    assert rig.encoder.asked == []
    assert [encoded.item.item_id for encoded in rig.announced()] == ["mug"]


async def test_stored_items_that_cannot_be_read_are_encoded_again() -> None:
    rig = Rig()
    await rig.handle(mug())
    rig.store.corrupt = True
    await rig.handle(mug(price=2))
    assert rig.encoder.asked == ["Mug", "Mug"]
    assert rig.store.items["mug"].item.price == 2


async def test_a_store_that_is_away_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.catalogue.backoff_s", lambda attempt: 0)
    rig = Rig()
    rig.store.well = False
    handling = asyncio.create_task(rig.handle(mug()))
    await asyncio.wait_for(rig.store.sick.wait(), 5)
    assert rig.catalogue.away == "Qdrant is away"
    assert rig.outbox.sent == []
    rig.store.well = True
    await asyncio.wait_for(handling, 5)
    assert rig.catalogue.away == ""
    assert [sent.topic for sent in rig.outbox.sent] == [NAMES.items_encoded]


async def test_nothing_is_encoded_for_a_partition_that_was_lost_while_the_store_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.catalogue.backoff_s", lambda attempt: 0)
    rig = Rig()
    rig.store.well = False
    handling = asyncio.create_task(rig.handle(mug()))
    await asyncio.wait_for(rig.store.sick.wait(), 5)
    rig.progress.start(2)
    await asyncio.wait_for(handling, 5)
    assert rig.encoder.asked == []
    assert rig.outbox.sent == []
