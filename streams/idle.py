"""Users without an event for long leave memory and changelog; markers end, and unused items go."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from interest import metrics as m
from interest.clock import Clock
from interest.ports import Metrics
from streams.compaction import Compaction
from streams.dirty import DirtyUsers
from streams.partitions import Partition
from streams.windows import WindowStore

log = logging.getLogger(__name__)

_DAY_MS: Final = 86_400_000
_LONGEST_PAUSE_S: Final = 600.0
#: Windows looked at between two turns of the loop.
_SLICE: Final = 2_000


class IdleUsers:
    """Evicts by when a window last changed, never by event time: a replayed log is old.

    What an evicted user did lies before everything that can still enter a window of theirs,
    given that ``idle_days`` are not less than the span of a window. Their vector stays.
    """

    def __init__(
        self,
        *,
        idle_days: float,
        marker_days: float,
        windows: WindowStore,
        compaction: Compaction,
        dirty: DirtyUsers,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._idle_ms = idle_days * _DAY_MS
        self._marker_ms = marker_days * _DAY_MS
        self._windows = windows
        self._compaction = compaction
        self._dirty = dirty
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Evict until cancelled."""
        pause_s = min(_LONGEST_PAUSE_S, self._idle_ms / 1000 / 20)
        while True:
            await asyncio.sleep(pause_s)
            n = 0
            for partition in list(self._windows.partitions.values()):
                n += await self.evict(partition)
            if n:
                self._metrics.count(m.IDLE, n)
                log.info("%d idle users left", n)
            if self._compaction.is_due:
                await self._compaction.compact()

    async def evict(self, partition: Partition) -> int:
        """Let the idle users of a partition go; return how many."""
        oldest_ms = self._clock() - self._idle_ms
        n = 0
        for i, (subject_id, held) in enumerate(partition.each()):
            if i % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            if held.touched_ms >= oldest_ms or subject_id in self._dirty:
                continue
            if self._windows.partitions.get(partition.number) is not partition:
                return n  # revoked while this slept
            # Looked up again, as the user may have come back, or been forgotten, meanwhile.
            current = partition.held.peek(subject_id)
            if current is not None and current.touched_ms < oldest_ms:
                partition.remove(subject_id)
                n += 1
        for marker in list(partition.markers.values()):
            if marker.time_ms < self._clock() - self._marker_ms:
                partition.unmark(marker)
        return n
