"""Items in process: an exact scan that lets the process run. Why: ``docs/adr/0019``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final, TypeVar

from interest.errors import BadInput, ServiceUnavailable
from interest.item import EncodedItem, ItemQuery, ScoredItem
from store.exact_scan import kernel
from store.item_table import ItemTable
from store.points import check_id, check_vectors

#: Items that are written or read without a break: each costs microseconds of the interpreter's
#: lock, and whoever waits for it waits for all of them.
_BATCH: Final = 64

T = TypeVar("T")


class EmbeddedItems:
    """The port ``ItemStore`` for one process; nothing survives it, the feed fills it again.

    Searches run beside each other on threads, one per core; the scan itself does not hold the
    interpreter's lock. A search sees all of an item's change or nothing of it, and never waits
    for a writer.

    Args:
        dim: length of the vectors.
    """

    shared: Final = False

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._table: ItemTable | None = None
        # Written by one thread, so that writes keep their order.
        self._writer = ThreadPoolExecutor(1, "items-writer")
        self._readers = ThreadPoolExecutor(os.cpu_count() or 1, "items-reader")
        self._closed = False

    async def open(self) -> None:
        """Begin, empty; again is fine.

        Raises:
            ServiceUnavailable: the extra ``embedded`` is not installed, or it was closed.
        """
        if self._closed:
            raise ServiceUnavailable("the item index is closed")
        kernel()  # that it is there
        if self._table is None:
            self._table = ItemTable(self._dim)

    @property
    def _open_table(self) -> ItemTable:
        if self._table is None:
            state = "closed" if self._closed else "not open"
            raise ServiceUnavailable(f"the item index is {state}")
        return self._table

    async def _run(self, threads: Executor, work: Callable[[], T]) -> T:
        try:
            done = asyncio.get_running_loop().run_in_executor(threads, work)
        except RuntimeError as error:  # the executor takes no more
            raise ServiceUnavailable("the item index is closed") from error
        return await done

    async def ping(self) -> None:
        """Return if it is open."""
        _ = self._open_table

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        """Add or replace items; they are found when it returns.

        Raises:
            BadInput: a vector of another length, zero, or with NaN or infinity; nothing is stored.
        """
        check_vectors(items, self._dim)
        table = self._open_table
        for first in range(0, len(items), _BATCH):
            part = items[first : first + _BATCH]
            await self._run(self._writer, lambda part=part: table.upsert(part))  # type: ignore[misc]

    async def remove(self, item_ids: Sequence[str]) -> None:
        """Remove items; unknown ids are fine."""
        table = self._open_table
        await self._run(self._writer, lambda: table.remove(item_ids))

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        """Read items by id; unknown ids are left out."""
        table = self._open_table
        found: dict[str, EncodedItem] = {}
        for number, item_id in enumerate(item_ids, start=1):
            encoded = table.get(item_id)
            if encoded is not None:
                found[item_id] = encoded
            else:
                check_id(item_id)
            if number % _BATCH == 0:
                await asyncio.sleep(0)
        return found

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Find the nearest items, best first, ties by item id: the exhaustive answer.

        Raises:
            BadInput: the query's vectors have another length.
        """
        if query.vectors.shape[1] != self._dim:
            raise BadInput(f"query of {query.vectors.shape[1]} dimensions, expected {self._dim}")
        table = self._open_table
        return await self._run(self._readers, lambda: table.search(query))

    async def count(self) -> int:
        """Count the items."""
        return len(self._open_table)

    async def close(self) -> None:
        """Give the memory back; again is fine."""
        self._closed = True
        self._table = None
        self._writer.shutdown(wait=False)
        self._readers.shutdown(wait=False)
