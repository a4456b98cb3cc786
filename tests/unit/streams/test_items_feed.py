"""The items feed: which announcement of an item counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from interest.item import EncodedItem, Item, encoded_item_to_bytes, unit
from interest.metrics import NoMetrics
from interest.settings import Settings
from streams.items_feed import ItemsFeed, Source, item_key
from tests.unit.streams.fakes import T0, KafkaRecord

VECTOR = unit(np.ones((1, 2), np.float32))[0]


class Store:
    """An index in process: titles by id."""

    shared = False

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        self.titles.update((one.item.item_id, one.item.title) for one in items)

    async def remove(self, item_ids: Sequence[str]) -> None:
        for item_id in item_ids:
            del self.titles[item_id]


class Rig:
    def __init__(self) -> None:
        self.store = Store()
        self.changed: list[list[str]] = []
        self.feed = ItemsFeed(
            Settings(), "items-encoded", "m", self.store, None, NoMetrics(),  # type: ignore[arg-type]
            on_changed=lambda item_ids: self.changed.append(list(item_ids)),
        )  # fmt: skip
        self.feed.caught_up.set()

    async def read(self, *records: KafkaRecord) -> None:
        await self.feed._apply(records)


def announced(title: str | None, offset: int, partition: int = 0, ms: int = T0) -> KafkaRecord:
    """An announcement of the item ``mug`` (None: removed) of a catalogue record."""
    value = None
    if title is not None:
        value = encoded_item_to_bytes(
            EncodedItem(item=Item(item_id="mug", title=title), vector=VECTOR)
        )
    headers = Source(partition, offset, ms).headers()
    return KafkaRecord("items-encoded", 0, 0, item_key("m", "mug"), value, headers=headers)


async def test_what_a_woken_worker_announces_last_does_not_replace_what_is_newer() -> None:
    rig = Rig()
    await rig.read(announced("old", 1))
    await rig.read(announced("new", 2))
    await rig.read(announced("old", 1))
    assert rig.store.titles == {"mug": "new"}
    assert len(rig.changed) == 2
    assert rig.feed.overtaken == {"mug": Source(0, 2, T0)}
    assert rig.feed.on_overtaken.is_set()
    await rig.read(announced("new", 2))  # announced anew
    assert rig.feed.overtaken == {}
    assert len(rig.changed) == 2


async def test_that_holds_within_one_fetch_and_behind_a_record_of_equal_content() -> None:
    rig = Rig()
    await rig.read(announced("new", 2), announced("old", 1))
    assert rig.store.titles == {"mug": "new"}
    await rig.read(announced("new", 7))
    await rig.read(announced("between", 5))
    assert rig.store.titles == {"mug": "new"}
    assert rig.feed.overtaken == {"mug": Source(0, 7, T0)}


async def test_an_item_that_was_removed_does_not_come_back_by_an_older_announcement() -> None:
    rig = Rig()
    await rig.read(announced("old", 1))
    await rig.read(announced(None, 2))
    await rig.read(announced("old", 1))
    assert rig.store.titles == {}
    await rig.read(announced("new", 3))
    assert rig.store.titles == {"mug": "new"}
    await rig.read(announced(None, 2))
    assert rig.store.titles == {"mug": "new"}


@pytest.mark.parametrize(
    "later",
    [
        announced("later", 1, ms=T0 + 1),  # a topic that was made again
        announced("later", 9, ms=T0 - 1),  # a producer whose clock is behind
        announced("later", 1, partition=3),  # a producer that hashes differently
        announced("later", 1)._replace(headers=()),
    ],
)
async def test_what_is_not_known_to_be_older_counts_by_its_place(later: KafkaRecord) -> None:
    rig = Rig()
    await rig.read(announced("first", 5))
    await rig.read(later)
    assert rig.store.titles == {"mug": "later"}
    assert rig.feed.overtaken == {}
