"""Makes the users who hold a changed item dirty, by reading through the windows.

An index from items to holders would cost more memory than the windows themselves. Items change
rarely, and however many changed since the last pass, one pass serves them all; the pauses
between passes keep it below a fifth of a core.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from interest.item_table import ItemTable
from interest.window import touch
from streams.dirty import DirtyUsers
from streams.partitions import Partition
from streams.progress import Progress
from streams.windows import WindowStore

#: Windows looked at between two turns of the loop.
_SLICE: Final = 2_000
_SHORTEST_PAUSE_S: Final = 0.05


class Holders:
    """Collects changed items, and marks their holders."""

    def __init__(self, windows: WindowStore, dirty: DirtyUsers, progress: Progress) -> None:
        self._windows = windows
        self._dirty = dirty
        self._progress = progress
        self._items: set[str] = set()
        self._changed = asyncio.Event()

    def changed(self, item_ids: Sequence[str]) -> None:
        """Say that items were added, changed or removed."""
        self._items.update(item_ids)
        self._changed.set()

    @property
    def pending(self) -> bool:
        """True while holders of changed items may not be marked yet."""
        return bool(self._items)

    async def run(self) -> None:
        """Mark holders until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            items = frozenset(self._items)
            began = time.thread_time()
            for partition in list(self._windows.partitions.values()):
                await self._scan(partition, items)
            self._items -= items
            spent_s = time.thread_time() - began
            await asyncio.sleep(max(_SHORTEST_PAUSE_S, 4 * spent_s))

    async def _scan(self, partition: Partition, items: frozenset[str]) -> None:
        table: ItemTable | None = None
        numbers: set[int] = set()
        for i, (subject_id, held) in enumerate(partition.each()):
            if i % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            window = held.window
            if window.items is not table:  # the first time, and after a compaction
                table = window.items
                numbers = {n for n in map(table.find, items) if n is not None}
            if not numbers.isdisjoint(window.item_numbers()):
                # Looked up again: it may have left while this scan slept, and it has moved on.
                if subject_id not in partition.held:
                    continue
                # Under our generation: a former owner may have raised the revision as often.
                partition.replace(touch(partition.window(subject_id)), self._progress.generation)
                self._dirty.mark(subject_id, partition.number, None)
