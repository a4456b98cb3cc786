"""Letting go of items that are in no window any more.

A table of items only grows (:mod:`interest.item_table`). When it has doubled since it was last
looked over, the worker goes over to an empty one, moves its windows there a slice at a time, and
with them the items they hold. Meanwhile windows of both are about; each holds its table, so none is
misread.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from interest.item_table import ItemTable
from streams.partitions import Partition
from streams.windows import WindowStore

log = logging.getLogger(__name__)

#: Items that are never too many: some ten megabytes.
_FEW: Final = 100_000
#: Windows moved between two turns of the loop.
_SLICE: Final = 500


class Compaction:
    """Compacts the table of items of one worker."""

    def __init__(self, windows: WindowStore, few: int = _FEW) -> None:
        self._windows = windows
        self._few = few
        self._n_live = 0

    @property
    def is_due(self) -> bool:
        """True where the table may be mostly of items that are in no window."""
        return len(self._windows.item_table) > max(self._few, 2 * self._n_live)

    async def compact(self) -> None:
        """Move everything to a new table."""
        old, new = self._windows.item_table, ItemTable()
        self._windows.begin_table(new)
        for partition in self._windows.all_partitions():
            await self._move(partition)
        self._n_live = len(new)
        log.info("%d of %d items are in windows; the others are forgotten", len(new), len(old))

    async def _move(self, partition: Partition) -> None:
        for i, subject_id in enumerate(partition.held.in_memory()):
            if i % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            partition.renumber(subject_id)
