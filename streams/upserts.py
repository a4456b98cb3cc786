"""The last stage of a micro-batch: vectors become readable, are confirmed, and are announced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from interest import metrics as m
from interest.clock import Clock
from interest.forgetting import Marker
from interest.ports import Metrics, UserVectorStore, VectorUpdate
from interest.recent import recent_of
from interest.sparse import EMPTY
from interest.vector import Token, UserVector
from streams.change_feed import ChangeFeed
from streams.dirty import DirtyUsers, Mark
from streams.encoding import EncodedRow
from streams.window_records import Held
from streams.windows import WindowStore

#: Users handled in one go; between two goes the loop serves intake, heartbeats and probes.
_SLICE: Final = 32


class Job(msgspec.Struct, frozen=True):
    """One user of a micro-batch: the mark, and what was held when the batch formed."""

    mark: Mark
    held: Held


class Refused(msgspec.Struct, frozen=True):
    """An upsert that the store did not take, and why."""

    job: Job
    by: Token | Marker


class EncodedUsers(msgspec.Struct, frozen=True):
    """What came from the device: ``rows[i]`` belongs to ``jobs[i]``.

    ``unknown`` are the items of these windows that nobody knows yet.
    """

    jobs: Sequence[Job]
    rows: Sequence[EncodedRow]
    unknown: frozenset[str]


class Upserts:
    """Stores the vectors of one model.

    Args:
        source_offset: how far a partition is read, for diagnosis.
        refused: settles upserts that the store refused; the marks are still in flight.
    """

    def __init__(
        self,
        *,
        model_id: str,
        windows: WindowStore,
        dirty: DirtyUsers,
        vectors: UserVectorStore,
        feed: ChangeFeed,
        clock: Clock,
        metrics: Metrics,
        source_offset: Callable[[int], int],
        refused: Callable[[Sequence[Refused]], Awaitable[None]],
    ) -> None:
        self._model_id = model_id
        self._windows = windows
        self._dirty = dirty
        self._vectors = vectors
        self._feed = feed
        self._clock = clock
        self._metrics = metrics
        self._source_offset = source_offset
        self._refused = refused

    async def store(self, encoded: EncodedUsers) -> None:
        """Upsert and confirm; start to announce. Users who were dropped meanwhile are left out.

        Raises:
            ServiceUnavailable: the store is away; what is still in flight must be put back.
        """
        jobs: list[Job] = []
        updates: list[VectorUpdate] = []
        now_ms = self._clock()
        for i, job in enumerate(encoded.jobs):
            if not i % _SLICE:
                await asyncio.sleep(0)
            # Else its partition was revoked: another worker writes this vector now.
            if self._dirty.is_in_flight(job.mark):
                jobs.append(job)
                updates.append(self._update(job, encoded.rows[i], now_ms))
        if not updates:
            return
        began_s, began = time.monotonic(), time.perf_counter()
        answers = await self._vectors.upsert(updates)
        self._metrics.observe(m.UPSERT, time.perf_counter() - began)
        stored: list[VectorUpdate] = []
        readable: list[Job] = []
        refusals: list[Refused] = []
        for job, update, answer in zip(jobs, updates, answers, strict=True):
            if answer is None:
                stored.append(update)
                readable.append(job)
            else:
                # Also a higher revision of our own generation: no two encodes of a user run at
                # once, so it is of another group that counted as far before the broker was wiped.
                refusals.append(Refused(job, answer))
        for job in readable:
            self._note(job, encoded.unknown)
        self._dirty.confirm([job.mark for job in readable])
        self._measure(readable)
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

    def _update(self, job: Job, row: EncodedRow, now_ms: int) -> VectorUpdate:
        window = job.held.window
        known = bool(row.vector.any())
        vector = UserVector(
            user_id=window.subject_id,
            model_id=self._model_id,
            token=job.held.token,
            event_time_ms=window.event_time_ms,
            encode_time_ms=now_ms,
            n_events=len(window),
            vectors=row.vector[np.newaxis][: int(known)],  # (1, D) or (0, D)
            sparse=row.sparse if known else EMPTY,
            source_partition=job.mark.partition,
            source_offset=self._source_offset(job.mark.partition),
        )
        return VectorUpdate(vector, recent_of(window))

    def _note(self, job: Job, unknown: frozenset[str]) -> None:
        """Remember of a window that it could be encoded, and whether all its items were known."""
        partition = self._windows.partitions.get(job.mark.partition)
        if partition is not None:
            unresolved = bool(unknown) and not unknown.isdisjoint(job.held.window.item_ids)
            partition.encoded(job.held, unresolved=unresolved)

    def _measure(self, jobs: Sequence[Job]) -> None:
        now_ms = self._clock()
        freshness_s = [
            max(0, now_ms - job.mark.since_ms) / 1000
            for job in jobs
            if job.mark.since_ms is not None
        ]
        self._metrics.count(m.VECTORS, len(jobs))
        self._metrics.observe_many(m.FRESHNESS, freshness_s)
        self._metrics.set(m.DIRTY, len(self._dirty))

    def _stands(self, update: VectorUpdate, number: int) -> bool:
        """Tell whether a stored vector is neither forgotten since nor another worker's to tell."""
        partition = self._windows.partitions.get(number)
        if partition is None:
            return False
        marker = partition.marker(update.vector.user_id)
        return marker is None or update.vector.token > marker.token

    def _encode_again(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            partition = self._windows.partitions.get(job.mark.partition)
            if partition is not None and job.mark.subject_id in partition.held:
                self._dirty.mark(job.mark.subject_id, job.mark.partition, None)
