"""A bounded cache of encoded items over an item store, its vectors in one table."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from interest.encoded_items import EncodedItems
from interest.errors import BadInput
from interest.item import EncodedItem, Item
from interest.ports import ItemStore

_FIRST_ROWS: Final = 1024
#: Items that leave a full cache at once, so that looking for the oldest is rare.
_SHARE_DROPPED: Final = 64


class ItemCache:
    """The port ``ItemLookup``: the items used last, at most ``max_items``.

    Ids that the store does not know are asked for again each time: an item may come any moment.

    Vectors are rows of one matrix, so that a micro-batch is gathered in one call. What ``fetch``
    gives is a copy: the encoder's thread reads it while rows here change their owner.

    Args:
        half: keep vectors in half precision: half of the memory, cosine ≥ 0.9999999.
        folder: keep vectors in a memory-mapped file there, so that the system may put those that
            are not used out of memory; empty: in memory.

    Raises:
        BadInput: no file can be made in that folder.
    """

    def __init__(
        self, store: ItemStore, max_items: int, *, half: bool = False, folder: str = ""
    ) -> None:
        self._store = store
        self._max_items = max_items
        self._dtype: np.dtype[Any] = np.dtype(np.float16 if half else np.float32)
        self._folder = folder
        if folder:
            _mapped(folder, (1, 1), self._dtype)  # sooner than at the first item
        self._rows: dict[str, int] = {}
        self._items: list[Item | None] = []  # by row; None where it is free
        self._free: list[int] = []
        self._vectors: NDArray[np.floating] = np.zeros((0, 0), self._dtype)  # (rows, D)
        self._used: NDArray[np.int64] = np.zeros(0, np.int64)  # number of the fetch or put
        self._now = 0
        #: For each fetch under way, the items that were put or dropped since it asked.
        self._changed: list[set[str]] = []

    async def fetch(self, item_ids: Sequence[str]) -> EncodedItems:
        """Read items, from memory where possible; unknown ids are left out."""
        row_of = self._rows.get
        rows = [row_of(item_id) for item_id in item_ids]
        found = self._gather([row for row in rows if row is not None])
        missing = [i for i, row in zip(item_ids, rows, strict=True) if row is None]
        if not missing:
            return found
        asked = await self._ask(missing)
        if not len(asked):
            return found
        if not len(found):
            return asked
        return EncodedItems(
            [*found.items_by_row, *asked.items_by_row],
            np.concatenate([found.vectors, asked.vectors]),
        )

    async def _ask(self, missing: Sequence[str]) -> EncodedItems:
        changed: set[str] = set()
        self._changed.append(changed)
        try:
            fetched = await self._store.fetch(missing)
        finally:
            # By identity: two fetches under way may have equal sets.
            self._changed = [other for other in self._changed if other is not changed]
        # What the feed said meanwhile is newer than the store's answer. Only for those items:
        # during a bulk load the feed never rests, and the others must be kept all the same.
        self._keep(encoded for i, encoded in fetched.items() if i not in changed)
        newer = changed.intersection(missing) & self._rows.keys()
        return EncodedItems.stacked(
            {**fetched, **self._gather([self._rows[item_id] for item_id in newer])}.values()
        )

    def put(self, items: Sequence[EncodedItem]) -> None:
        """Replace what is cached of these items."""
        self._note({encoded.item.item_id for encoded in items})
        self._keep(items)

    def drop(self, item_ids: Sequence[str]) -> None:
        """Forget these items."""
        self._note(set(item_ids))
        for item_id in item_ids:
            row = self._rows.pop(item_id, None)
            if row is not None:
                self._release(row)

    def _note(self, item_ids: set[str]) -> None:
        for changed in self._changed:
            changed |= item_ids

    def _gather(self, rows: list[int]) -> EncodedItems:
        """Copy rows, and note that they were used."""
        self._now += 1
        self._used[rows] = self._now
        items = self._items
        return EncodedItems(
            [item for row in rows if (item := items[row]) is not None],
            self._vectors[rows].astype(np.float32, copy=False),
        )

    def _keep(self, items: Iterable[EncodedItem]) -> None:
        self._now += 1
        for encoded in items:
            row = self._rows.get(encoded.item.item_id)
            if row is None:
                row = self._rows[encoded.item.item_id] = self._take(len(encoded.vector))
            self._items[row] = encoded.item
            self._vectors[row] = encoded.vector
            self._used[row] = self._now

    def _take(self, dim: int) -> int:
        """Give a row that is free; where none is, of a larger table or of the items used last."""
        if not self._free:
            n_rows = len(self._items)
            if n_rows < self._max_items:
                self._grow(min(self._max_items, max(_FIRST_ROWS, 2 * n_rows)), dim)
            else:
                self._drop_oldest()
        return self._free.pop()

    def _grow(self, n_rows: int, dim: int) -> None:
        held = len(self._items)
        vectors = (
            _mapped(self._folder, (n_rows, dim), self._dtype)
            if self._folder
            else np.zeros((n_rows, dim), self._dtype)
        )
        used = np.zeros(n_rows, np.int64)
        vectors[:held], used[:held] = self._vectors.reshape(held, dim), self._used
        self._vectors, self._used = vectors, used
        self._items += [None] * (n_rows - held)
        self._free = list(range(n_rows - 1, held - 1, -1))

    def _drop_oldest(self) -> None:
        """Free some rows of those that were used longest ago; all rows are taken."""
        n = max(1, self._max_items // _SHARE_DROPPED)
        for row in np.argpartition(self._used, n - 1)[:n].tolist():
            item = self._items[row]
            if item is not None:
                del self._rows[item.item_id]
                self._release(row)

    def _release(self, row: int) -> None:
        self._items[row] = None
        self._free.append(row)


def _mapped(folder: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """Give zeros that lie in a file without a name, which goes when nobody maps it any more."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # Reserved: on a full disk a page that is written later would end the process.
            os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * dtype.itemsize)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise BadInput(f"INTEREST_ITEM_CACHE_FOLDER: {error}") from error
