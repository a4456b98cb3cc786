"""The checkpoint: what makes a crash at any moment harmless.

In this order, and nothing is taken back:

1. Note the generation, how far the sources are read, and the newest dirty mark.
2. Write the windows that changed since the last checkpoint to the changelog; wait until the
   broker has acknowledged every record.
3. Wait until every user marked up to the note has a readable vector.
4. If the generation is still the noted one, commit the noted positions; believe it only if the
   broker took it.

Vectors do not wait for any of this: they are encoded and upserted all the time. A crash between
two steps is repaired by reading again from the last commit; folding an event twice changes
nothing, and it marks the user dirty again. A slow sink holds step 3, and with it the commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka.errors import KafkaError
from faust.types import TP

from interest import metrics as m
from interest.errors import ServiceUnavailable
from interest.ports import Metrics, UserVectorStore
from interest.settings import Settings
from streams.dirty import DirtyUsers
from streams.outbox import Outbox, Record, backoff_s
from streams.partitions import Partition
from streams.progress import Progress
from streams.transport import ChunkConsumer
from streams.window_records import WindowRecords
from streams.windows import WindowStore

log = logging.getLogger(__name__)

#: The checkpoint's own work may take this part of a core.
_SHARE: Final = 0.2
_SLICE: Final = 500
_POPULAR_ITEMS: Final = 1_000


class Checkpoint:
    """Runs checkpoints on a timer that follows their cost, sooner where much is uncommitted."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: WindowRecords,
        windows: WindowStore,
        dirty: DirtyUsers,
        progress: Progress,
        outbox: Outbox,
        vectors: UserVectorStore,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._records = records
        self._windows = windows
        self._dirty = dirty
        self._progress = progress
        self._outbox = outbox
        self._vectors = vectors
        self._metrics = metrics
        self._taking = asyncio.Lock()
        # Another than that of a whole checkpoint, which waits for vectors: settling a vector that
        # was refused may have to write first.
        self._writing = asyncio.Lock()
        self._work_s = 0.0

    async def run(self, consumer: ChunkConsumer) -> None:
        """Checkpoint until cancelled."""
        attempt = 0
        while True:
            low, high = self._settings.checkpoint_min_s, self._settings.checkpoint_max_s
            pause_s = min(max(low, self._work_s / _SHARE), high)
            with suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it can lose a cancellation.
                async with asyncio.timeout(pause_s):
                    await self._progress.pressed.wait()
            self._progress.pressed.clear()
            try:
                await self.take(consumer)
                attempt = 0
            except KafkaError as error:
                # Nothing was committed, or it is not known; the next one commits as far.
                self._metrics.count(m.RETRIES, 1, "checkpoint")
                log.warning("the checkpoint waits: %s", error)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1

    async def take(self, consumer: ChunkConsumer) -> bool:
        """Take one checkpoint; return whether everything noted is committed.

        Raises:
            KafkaError: the commit was not answered.
        """
        async with self._taking:
            began = time.perf_counter()
            async with self._writing:
                # Noted only now: what another write has under way looks written, and is not.
                # The generation is the progress' own; the consumer may be in the next already.
                generation = self._progress.generation
                noted = self._progress.pending()
                seq = self._dirty.last_seq
                changed = [part for part in self._windows.partitions.values() if part.unwritten]
                if not noted and not changed:
                    return True
                worked = time.thread_time()
                for partition in changed:
                    await self._write(partition)
            await self.publish_popular(changed)
            self._work_s = time.thread_time() - worked
            await self._dirty.settled(seq)
            committed = await self._commit(consumer, noted, generation)
            self._metrics.observe(m.CHECKPOINT, time.perf_counter() - began)
            self._metrics.set(m.WINDOWS, self._windows.n_windows())
            return committed

    async def _commit(self, consumer: ChunkConsumer, noted: dict[TP, int], generation: int) -> bool:
        if not noted:
            return True
        async with self._progress.committing:
            if not await consumer.commit_offsets(noted, generation):
                log.info("commit of generation %d dropped: the group has moved on", generation)
                return False
            # A rebalance may have cleared the notes while the broker answered.
            self._progress.confirm(noted, generation)
        return True

    async def write(self, partition: Partition) -> None:
        """Return when the changelog has everything of a partition."""
        async with self._writing:
            await self._write(partition)

    async def _write(self, partition: Partition) -> None:
        waiting = list(partition.unfolded)
        for first in range(0, len(waiting), _SLICE):
            for subject_id in waiting[first : first + _SLICE]:
                partition.fold(subject_id)
            await asyncio.sleep(0)
        changed, partition.changed = partition.changed, set()
        # Markers first: what a crash leaves of the rest is older than they are.
        marked, removed = dict(partition.marked), dict(partition.removed)
        try:
            await self._send(
                partition,
                [self._records.marker(partition.number, marker) for marker in marked.values()],
            )
            subjects = list(changed)
            for first in range(0, len(subjects), _SLICE):
                records: list[Record] = []
                for subject_id in subjects[first : first + _SLICE]:
                    held = partition.held.get(subject_id)
                    if held is not None:
                        records.append(self._records.window(partition.number, held))
                await self._send(partition, records)
            await self._send(
                partition,
                [self._records.tombstone(partition.number, gone) for gone in removed.values()],
            )
        except BaseException:
            # Not written, or not known to be: the next checkpoint writes them again.
            partition.changed |= changed
            raise
        _drop_same(partition.marked, marked)
        _drop_same(partition.removed, removed)

    async def _send(self, partition: Partition, records: Sequence[Record]) -> None:
        # A revoked partition is abandoned: another worker writes these windows now.
        if records and self._windows.partitions.get(partition.number) is partition:
            await self._outbox.send_all(records)

    async def publish_popular(self, partitions: Sequence[Partition]) -> None:
        """Tell readers what is popular in these partitions; a store that is away is no error."""
        half_life_days = self._settings.popular_half_life_days
        try:
            for partition in partitions:
                top = partition.popular.top(_POPULAR_ITEMS, half_life_days)
                await self._vectors.publish_popular(partition.number, top)
        except ServiceUnavailable as error:
            # A list for cold users may be old; it is no reason to hold commits.
            log.warning("popular items wait: %s", error)


def _drop_same(waiting: dict[bytes, Any], written: dict[bytes, Any]) -> None:
    """Drop what was written, unless something else took its place meanwhile."""
    for key, entry in written.items():
        if waiting.get(key) is entry:
            del waiting[key]
