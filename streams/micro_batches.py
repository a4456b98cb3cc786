"""The way from dirty users to readable vectors: micro-batch, encode, upsert, announce.

A batch forms from whoever waits when the device is free, oldest first, bounded by tokens. There
is no fixed delay: at low load a batch is one user, under load it grows until the device is full.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from interest import metrics as m
from interest.bundle import ModelBundle
from interest.clock import Clock
from interest.errors import EncoderUnavailable, ServiceUnavailable
from interest.forgetting import Marker
from interest.item import EncodedItem
from interest.ports import (
    ItemLookup,
    Metrics,
    RecentBehaviour,
    UserEncoder,
    UserVectorStore,
    VectorUpdate,
)
from interest.vector import Token, UserVector
from interest.window import BehaviourWindow
from streams.change_feed import ChangeFeed
from streams.dirty import DirtyUsers, Mark
from streams.encoding import WindowEncoding
from streams.outbox import backoff_s
from streams.window_records import Held
from streams.windows import WindowStore

log = logging.getLogger(__name__)

_RECENT_TEXT_CHARS: Final = 128


class Job(msgspec.Struct, frozen=True):
    """One user of a micro-batch: the mark, and what was held when the batch formed."""

    mark: Mark
    held: Held


class Refused(msgspec.Struct, frozen=True):
    """An upsert that the store did not take, and why."""

    job: Job
    by: Token | Marker


class Poisoned(msgspec.Struct, frozen=True):
    """A user whose window cannot be encoded, and what the encoder said."""

    job: Job
    error: Exception
    items: Mapping[str, EncodedItem]


class MicroBatches:
    """Encodes dirty users for one model until cancelled.

    Args:
        refused: settles upserts that the store refused; the marks are still in flight.
        poisoned: settles users whose window fails alone; likewise.
    """

    def __init__(
        self,
        *,
        bundle: ModelBundle,
        encoder: UserEncoder,
        encoding: WindowEncoding,
        windows: WindowStore,
        dirty: DirtyUsers,
        lookup: ItemLookup,
        vectors: UserVectorStore,
        feed: ChangeFeed,
        budget_tokens: int,
        clock: Clock,
        metrics: Metrics,
        source_offset: Callable[[int], int],
        refused: Callable[[Sequence[Refused]], Awaitable[None]],
        poisoned: Callable[[Poisoned], Awaitable[None]],
    ) -> None:
        self._model_id = bundle.model_id
        self._encoder = encoder
        self._encoding = encoding
        self._windows = windows
        self._dirty = dirty
        self._lookup = lookup
        self._vectors = vectors
        self._feed = feed
        self._budget = budget_tokens
        self._clock = clock
        self._metrics = metrics
        self._source_offset = source_offset
        self._refused = refused
        self._poisoned = poisoned
        #: Why no vector can be written at present; empty while they are.
        self.stuck = ""
        #: The same, where a service is the reason: a device that failed may need a new process.
        self.away = ""

    async def run(self) -> None:
        """Turn dirty users into vectors; a sick encoder or store is retried, never skipped."""
        try:
            await self._run()
        finally:
            self._feed.close()

    async def _run(self) -> None:
        attempt = 0
        while True:
            await self._dirty.wait()
            marks = self._dirty.take(self._cost, self._budget)
            try:
                await self._process(marks)
                if attempt:
                    log.info("micro-batches go on, after %d tries", attempt + 1)
                attempt, self.stuck, self.away = 0, "", ""
            except (ServiceUnavailable, EncoderUnavailable) as error:
                self._dirty.put_back(marks)
                self._metrics.count(m.RETRIES, 1, type(error).__name__)
                log.warning("a micro-batch of %d users waits: %s", len(marks), error)
                self.stuck = str(error)
                self.away = self.stuck if isinstance(error, ServiceUnavailable) else ""
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1

    def _cost(self, mark: Mark) -> int:
        held = self._held(mark)
        return 1 if held is None else max(1, self._encoder.n_tokens(held.window))

    def _held(self, mark: Mark) -> Held | None:
        partition = self._windows.partitions.get(mark.partition)
        return None if partition is None else partition.held.get(mark.subject_id)

    async def _process(self, marks: Sequence[Mark]) -> None:
        jobs: list[Job] = []
        gone: list[Mark] = []
        for mark in marks:
            held = self._held(mark)
            if held is None:
                # The partition was revoked and its new owner encodes it, or the user is
                # forgotten or idle and there is nothing to encode.
                gone.append(mark)
            else:
                jobs.append(Job(mark, msgspec.structs.replace(held)))
        self._dirty.confirm(gone)
        if not jobs:
            return
        items = await self._lookup.fetch(
            sorted({item_id for job in jobs for item_id in job.held.window.item_ids})
        )
        began = time.perf_counter()
        encoded = await self._encoding.encode([job.held.window for job in jobs], items)
        self._metrics.observe(m.ENCODE, time.perf_counter() - began)
        self._metrics.observe(m.BATCH_USERS, len(jobs))
        await self._upsert([(jobs[i], row) for i, row in sorted(encoded.rows.items())], items)
        for i, error in encoded.failures.items():
            await self._poisoned(Poisoned(jobs[i], error, items))

    async def _upsert(
        self,
        encoded: Sequence[tuple[Job, NDArray[np.float32]]],
        items: Mapping[str, EncodedItem],
    ) -> None:
        if not encoded:
            return
        updates = [self._update(job, row) for job, row in encoded]
        began_s, began = time.monotonic(), time.perf_counter()
        answers = await self._vectors.upsert(updates)
        self._metrics.observe(m.UPSERT, time.perf_counter() - began)
        now_ms = self._clock()
        stored: list[VectorUpdate] = []
        readable: list[Job] = []
        refusals: list[Refused] = []
        for (job, _), update, answer in zip(encoded, updates, answers, strict=True):
            if answer is None:
                stored.append(update)
                readable.append(job)
            else:
                # Also a higher revision of our own generation: no two encodes of a user run at
                # once, so it is of another group that counted as far before the broker was wiped.
                refusals.append(Refused(job, answer))
        for job in readable:
            self._note(job, items)
        self._dirty.confirm([job.mark for job in readable])
        self._measure(readable, now_ms)
        if refusals:
            self._metrics.count(m.REFUSED, len(refusals))
            await self._refused(refusals)
        number_of = {job.mark.subject_id: job.mark.partition for job in readable}
        await self._feed.announce(
            stored,
            began_s,
            lambda: self._encode_again(readable),
            lambda update: self._stands(update, number_of[update.vector.user_id]),
        )

    def _stands(self, update: VectorUpdate, number: int) -> bool:
        """Tell whether a stored vector is neither forgotten since nor another worker's to tell."""
        partition = self._windows.partitions.get(number)
        if partition is None:
            return False
        marker = partition.marker(update.vector.user_id)
        return marker is None or update.vector.token > marker.token

    def _encode_again(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if self._held(job.mark) is not None:
                self._dirty.mark(job.mark.subject_id, job.mark.partition, None)

    def _measure(self, jobs: Sequence[Job], now_ms: int) -> None:
        freshness_s = [
            max(0, now_ms - job.mark.since_ms) / 1000
            for job in jobs
            if job.mark.since_ms is not None
        ]
        self._metrics.count(m.VECTORS, len(jobs))
        self._metrics.observe_many(m.FRESHNESS, freshness_s)
        self._metrics.set(m.DIRTY, len(self._dirty))

    def _update(self, job: Job, row: NDArray[np.float32]) -> VectorUpdate:
        window = job.held.window
        vector = UserVector(
            user_id=window.subject_id,
            model_id=self._model_id,
            token=job.held.token,
            event_time_ms=window.event_time_ms,
            encode_time_ms=self._clock(),
            n_events=len(window),
            vectors=row[np.newaxis] if row.any() else np.zeros((0, row.size), np.float32),
            source_partition=job.mark.partition,
            source_offset=self._source_offset(job.mark.partition),
        )
        return VectorUpdate(vector, recent_behaviours(window))

    def _note(self, job: Job, items: Mapping[str, EncodedItem]) -> None:
        """Remember of a window that it could be encoded, and whether all its items were known."""
        partition = self._windows.partitions.get(job.mark.partition)
        if partition is not None:
            unresolved = not job.held.window.item_ids <= items.keys()
            partition.encoded(job.held, unresolved=unresolved)


def recent_behaviours(window: BehaviourWindow) -> tuple[RecentBehaviour, ...]:
    """Give what readers see of a window, newest first."""
    return tuple(
        RecentBehaviour(
            event.type,
            int(event.ts),
            event.item_id,
            event.text[:_RECENT_TEXT_CHARS] if event.text else None,
        )
        for event in reversed(window.events)
    )
