"""The cache of encoded items."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from interest.errors import BadInput, ServiceUnavailable
from interest.item import EncodedItem, Item
from store.item_cache import ItemCache


def encoded(item_id: str, title: str = "old") -> EncodedItem:
    vector = np.array([1.0, 0.0], np.float32)
    return EncodedItem(item=Item(item_id=item_id, title=title), vector=vector)


class Slow:
    """A store whose answers wait until they are let go."""

    def __init__(self) -> None:
        self.items = {item_id: encoded(item_id) for item_id in "abcdef"}
        self.asked: list[list[str]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        self.asked.append(list(item_ids))
        found = {i: self.items[i] for i in item_ids if i in self.items}
        await self.go.wait()
        return found


async def test_an_item_is_asked_for_once_and_the_oldest_is_forgotten() -> None:
    store = Slow()
    cache = ItemCache(store, 2)  # type: ignore[arg-type]
    await cache.fetch(["a", "b"])
    await cache.fetch(["a"])
    await cache.fetch(["c"])  # b was used longest ago
    await cache.fetch(["a", "b"])
    assert store.asked == [["a", "b"], ["c"], ["b"]]


async def test_unknown_items_are_asked_for_again() -> None:
    store = Slow()
    cache = ItemCache(store, 9)  # type: ignore[arg-type]
    assert await cache.fetch(["new"]) == {}
    store.items["new"] = encoded("new")
    assert "new" in await cache.fetch(["new"])


async def test_a_feed_that_never_rests_does_not_keep_the_cache_empty() -> None:
    store = Slow()
    cache = ItemCache(store, 9)  # type: ignore[arg-type]
    store.go.clear()
    fetching = [asyncio.create_task(cache.fetch(["a", "b"])) for _ in range(2)]
    await asyncio.sleep(0)
    cache.put([encoded("x", "new")])
    cache.drop(["b"])
    store.go.set()
    await asyncio.gather(*fetching)
    await cache.fetch(["a", "x"])
    assert len(store.asked) == 2, "a was kept, though the feed moved"
    await cache.fetch(["b"])
    assert store.asked[-1] == ["b"]


async def test_a_fetch_that_fails_leaves_no_trace() -> None:
    class Away(Slow):
        async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
            raise ServiceUnavailable("away")

    cache = ItemCache(Away(), 9)  # type: ignore[arg-type]
    with pytest.raises(ServiceUnavailable):
        await cache.fetch(["a"])
    assert cache._changed == []


async def test_news_that_come_during_a_fetch_are_not_overwritten_by_its_older_answer() -> None:
    store = Slow()
    cache = ItemCache(store, 9)  # type: ignore[arg-type]
    store.go.clear()
    fetching = asyncio.create_task(cache.fetch(["a", "b"]))
    await asyncio.sleep(0)
    cache.put([encoded("a", "new")])
    cache.drop(["b"])
    store.go.set()
    assert (await fetching)["a"].item.title == "new"
    assert (await cache.fetch(["a"]))["a"].item.title == "new"
    await cache.fetch(["b"])
    assert store.asked[-1] == ["b"], "what was dropped meanwhile is asked for again"


async def test_vectors_may_lie_in_a_mapped_file_that_nobody_has_to_remove(tmp_path: Path) -> None:
    cache = ItemCache(Slow(), 5_000, half=True, folder=str(tmp_path))  # type: ignore[arg-type]
    cache.put([encoded(f"i{n}") for n in range(3_000)])  # more than the first table has room for
    found = await cache.fetch([f"i{n}" for n in range(3_000)])
    assert len(found) == 3_000
    np.testing.assert_array_equal(found.vectors, np.tile([1.0, 0.0], (3_000, 1)))
    assert isinstance(cache._vectors, np.memmap)
    assert _left_in(tmp_path) == []


def _left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="INTEREST_ITEM_CACHE_FOLDER"):
        ItemCache(Slow(), 9, folder=str(tmp_path / "missing"))  # type: ignore[arg-type]
