"""Forgetting a person, on request of the ``forget`` topic, so that nothing brings them back.

In this order, and each step can be done twice:

1. In memory: the marker is set and the window loses what is older. From here on no event of
   before the request is folded, and what an encode under way upserts has a lower token.
2. Marker, tombstone or shortened window → changelog, acknowledged.
3. Redis: the user's hash goes, the marker stays; it refuses lower tokens, whoever writes.
4. The change feed gets a tombstone, and the dead letters that carry the user go.
5. Only then may the request's offset be committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final

import msgspec
from faust.types import TP

from interest import metrics as m
from interest.clock import Clock
from interest.errors import InvalidEvent, ServiceUnavailable
from interest.forgetting import Marker, decode_forget_request
from interest.partition import partition_of
from interest.ports import Metrics, UserVectorStore
from streams.change_feed import ChangeFeed
from streams.checkpoint import Checkpoint
from streams.dead_letters import dead_letter
from streams.dirty import DirtyUsers
from streams.outbox import Outbox, Record, backoff_s
from streams.partitions import Partition
from streams.progress import Progress
from streams.routing import arrived_ms, sent_on_headers
from streams.topics import TopicNames
from streams.transport import Chunk
from streams.upserts import Job
from streams.windows import WindowStore

log = logging.getLogger(__name__)

_CHUNKS_AHEAD: Final = 16
#: Requests that share one reading of the dead letters.
_PEOPLE: Final = 64


class _Erasure(msgspec.Struct, frozen=True):
    partition: Partition
    user_id: str
    subject_id: str
    marker: Marker


class _Batch(msgspec.Struct, frozen=True):
    tp: TP
    generation: int
    lap: int
    next_offset: int
    erasures: tuple[_Erasure, ...]


class Forgetting:
    """Handles the ``forget`` topic of this worker's partitions.

    Args:
        pseudonym: what stands for a user id everywhere but in the source topics.
        remove_letters: removes the dead letters that carry one of these ids.
    """

    def __init__(
        self,
        *,
        names: TopicNames,
        n_partitions: int,
        pseudonym: Callable[[str], str],
        windows: WindowStore,
        dirty: DirtyUsers,
        progress: Progress,
        checkpoint: Checkpoint,
        vectors: UserVectorStore,
        feed: ChangeFeed,
        outbox: Outbox,
        remove_letters: Callable[[Collection[str]], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._names = names
        self._n_partitions = n_partitions
        self._pseudonym = pseudonym
        self._windows = windows
        self._dirty = dirty
        self._progress = progress
        self._checkpoint = checkpoint
        self._vectors = vectors
        self._feed = feed
        self._outbox = outbox
        self._remove_letters = remove_letters
        self._clock = clock
        self._metrics = metrics
        self._queue: asyncio.Queue[_Batch] = asyncio.Queue(_CHUNKS_AHEAD)
        self._n_pending = 0

    @property
    def pending(self) -> bool:
        """True while a request is not carried out everywhere."""
        return self._n_pending > 0

    async def handle(self, chunk: Chunk) -> None:
        """Obey a chunk of requests in memory at once, everywhere else in :meth:`run`."""
        if not self._progress.take(chunk):
            return
        partition = self._windows.partition(chunk.tp.partition)
        outgoing: list[Record] = []
        erasures: list[_Erasure] = []
        for record in chunk.records:
            arrived = arrived_ms(record, sent_on=True)
            try:
                user_id = decode_forget_request(record.value).user_id
            except InvalidEvent as error:
                self._metrics.count(m.DEAD_LETTERS, 1, error.reason)
                outgoing.append(dead_letter(self._names.dead_letters, record, error, self._clock()))
                continue
            subject_id = self._pseudonym(user_id)
            home = partition_of(subject_id, self._n_partitions)
            if home == partition.number:
                marker = partition.forget(subject_id, arrived, chunk.generation)
                erasures.append(_Erasure(partition, user_id, subject_id, marker))
            else:
                outgoing.append(
                    Record(
                        topic=self._names.forget,
                        key=user_id.encode(),
                        value=record.value,
                        partition=home,
                        headers=sent_on_headers(record, arrived),
                    )
                )
        await self._outbox.send_all(outgoing)
        self._n_pending += 1
        await self._queue.put(
            _Batch(
                chunk.tp, chunk.generation, chunk.lap, chunk.records[-1].offset + 1, tuple(erasures)
            )
        )

    async def run(self) -> None:
        """Carry requests out in their order, until cancelled."""
        while True:
            batch = await self._queue.get()
            for erasure in batch.erasures:
                await self._retry(batch, partial(self._erase, erasure, batch.generation))
            for first in range(0, len(batch.erasures), _PEOPLE):
                part = batch.erasures[first : first + _PEOPLE]
                # As they came, and as they were sent on.
                ids = {person for e in part for person in (e.user_id, e.subject_id)}
                await self._retry(batch, partial(self._remove_letters, ids))
            if self._progress.advanced(batch.tp, batch.next_offset, batch.lap):
                self._metrics.count(m.FORGOTTEN, len(batch.erasures))
            self._n_pending -= 1

    async def _retry(self, batch: _Batch, step: Callable[[], Awaitable[None]]) -> None:
        attempt = 0
        while batch.generation == self._progress.generation:  # else its new owner reads it again
            try:
                await step()
            except ServiceUnavailable as error:
                self._metrics.count(m.RETRIES, 1, "forget")
                log.warning("forgetting a user waits: %s", error)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
            else:
                return

    async def _erase(self, erasure: _Erasure, generation: int) -> None:
        partition, subject_id = erasure.partition, erasure.subject_id
        await self._checkpoint.write(partition)
        marker = await self._vectors.forget(subject_id, erasure.marker)
        # The store may have known a higher token; what comes later must exceed that one.
        partition.adopt(subject_id, marker, generation)
        await self._checkpoint.write(partition)
        if subject_id in partition.held:
            self._dirty.mark(subject_id, partition.number, None)
        await self._feed.forget(subject_id)

    async def adopt(self, job: Job, marker: Marker) -> None:
        """Obey a marker that refused an upsert: Redis knows more than our changelog."""
        subject_id, number = job.mark.subject_id, job.mark.partition
        partition = self._windows.partitions.get(number)
        if partition is not None:
            partition.adopt(subject_id, marker, self._progress.generation)
            await self._checkpoint.write(partition)
            if subject_id in partition.held:
                self._dirty.mark(subject_id, number, None)
        self._dirty.confirm([job.mark])
