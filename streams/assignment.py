"""What happens after partitions were assigned and recovered, before their vectors are written.

The changelog is older than Redis by up to one checkpoint. A new owner who encoded at once would
put back vectors that show less than the ones that are there. So the marks of a partition are
held back until its sources are read again to where they ended at the assignment, or for so long
that fresh events matter more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka.errors import KafkaError
from faust.types import TP

from interest import metrics as m
from interest.errors import ServiceUnavailable
from interest.ports import Metrics
from streams.consumer_thread import SourceOffsets
from streams.dirty import DirtyUsers
from streams.items_feed import KnownItem
from streams.outbox import backoff_s
from streams.ownership import Ownership
from streams.partitions import Partition
from streams.progress import Progress
from streams.sources import SourceCheck
from streams.transport import ChunkConsumer
from streams.windows import WindowStore

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.02
_CONFIRMED_S: Final = 0.5


class Assignment:
    """Brings newly assigned partitions in line, and lets their vectors flow."""

    def __init__(
        self,
        *,
        topics: Sequence[str],
        check: SourceCheck,
        catch_up_s: float,
        windows: WindowStore,
        dirty: DirtyUsers,
        progress: Progress,
        ownership: Ownership,
        known_items: Mapping[str, KnownItem],
        metrics: Metrics,
    ) -> None:
        self._topics = tuple(topics)
        self._catch_up_s = catch_up_s
        self._windows = windows
        self._dirty = dirty
        self._progress = progress
        self._ownership = ownership
        self._known = known_items
        self._metrics = metrics
        self._check = check

    def hold_back(self, partitions: Sequence[Partition]) -> None:
        """Keep the marks of partitions apart, from before the first event is read."""
        for partition in partitions:
            self._dirty.hold_back(partition.number)

    async def settle(self, partitions: Sequence[Partition], consumer: ChunkConsumer) -> None:
        """Read again, reconcile with Redis, and release; also where that takes too long."""
        generation = self._progress.generation
        foreign: list[TP] = []
        try:
            with_windows = [partition.number for partition in partitions if partition.held]
            foreign = await self._check.check(consumer, self._sources(partitions), with_windows)
            caught_up = await self._caught_up(partitions, consumer)
        except KafkaError as error:
            log.warning("vectors go on before their events are read again: %s", error)
            caught_up = False
        # Who slept through the time may have lost the group, and would write windows half read.
        while not caught_up and generation == self._progress.generation:
            caught_up = await self._ownership.is_owner(consumer)
            await asyncio.sleep(0 if caught_up else _CONFIRMED_S)
        if not caught_up and any(self._is_ours(partition) for partition in partitions):
            await self.settle(partitions, consumer)  # in the generation that began meanwhile
            return
        ours = [partition for partition in partitions if self._is_ours(partition)]
        await self._ownership.write_eras(ours)
        for partition in ours:
            if self._is_ours(partition):
                self._dirty.release(partition.number)
        for partition in partitions:
            await self.reconcile(partition)
        if foreign:
            await self._report_moved(foreign, consumer, generation)

    async def _report_moved(
        self, foreign: Sequence[TP], consumer: ChunkConsumer, generation: int
    ) -> None:
        """Wait for a commit of our own, to see whether this broker keeps what marks it."""
        while not self._progress.confirmed:
            if generation != self._progress.generation:
                return
            await asyncio.sleep(_CONFIRMED_S)
        try:
            ours = await consumer.source_offsets(self._progress.confirmed)
        except KafkaError as error:
            log.info("whether offsets were set by somebody else is not known: %s", error)
            return
        if any(offsets.ours for offsets in ours.values()):
            self._check.report_moved(foreign)

    def _is_ours(self, partition: Partition) -> bool:
        return self._windows.partitions.get(partition.number) is partition

    def _sources(self, partitions: Sequence[Partition]) -> list[TP]:
        return [TP(topic, part.number) for part in partitions for topic in self._topics]

    async def _caught_up(self, partitions: Sequence[Partition], consumer: ChunkConsumer) -> bool:
        """Wait; tell whether everything was read.

        A partition that stays through a rebalance is then read once more from its commit.

        Raises:
            KafkaError: the broker did not answer.
        """
        deadline = time.monotonic() + self._catch_up_s
        offsets = await consumer.source_offsets(self._sources(partitions))
        waiting = {
            tp: known.end
            for tp, known in offsets.items()
            # A commit behind the end: the broker understates it.
            if known.end > known.start and known.end != known.committed
        }
        told = dict(waiting)
        while waiting and any(self._is_ours(partition) for partition in partitions):
            # Full, nothing more is read before something is committed, and that needs vectors.
            if self._progress.full or time.monotonic() > deadline:
                log.info("%d source partitions are not read again in time", len(waiting))
                return False
            await asyncio.sleep(_LOOK_S)
            ours = {partition.number for partition in partitions if self._is_ours(partition)}
            for tp in [tp for tp in told if tp in waiting and consumer.fetched_end(tp) is not None]:
                # Once, by the first fetch: what comes later is not waited for.
                waiting[tp] = consumer.known_end(tp, told.pop(tp))
            waiting = {
                tp: end
                for tp, end in waiting.items()
                if tp.partition in ours and (tp in told or self._read(tp, offsets[tp]) < end)
            }
        return True

    def _read(self, tp: TP, offsets: SourceOffsets) -> int:
        committed = offsets.start if offsets.committed is None else offsets.committed
        return self._progress.positions.get(tp, committed)

    async def reconcile(self, partition: Partition) -> None:
        """Renew the vectors of a partition that Redis does not hold as it should.

        Redis is waited for; the work ends with the ownership.
        """
        for subject_id, held in partition.each():
            if held.window.unresolved and held.window.item_ids & self._known.keys():
                self._dirty.mark(subject_id, partition.number, None)
        attempt = 0
        while self._is_ours(partition):
            try:
                n_marked = await self._ownership.reconcile(partition, self._known)
            except ServiceUnavailable as error:
                log.warning("reconciling partition %d waits: %s", partition.number, error)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
            else:
                if n_marked:
                    self._metrics.count(m.RECONCILED, n_marked)
                    log.info("partition %d: %d vectors renewed", partition.number, n_marked)
                return
