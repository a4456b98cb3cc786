"""The way from dirty users to readable vectors: micro-batch, encode, upsert, announce.

A batch forms from whoever waits when the device is free, oldest first, bounded by tokens. There
is no fixed delay: at low load a batch is one user, under load it grows until the device is full.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from interest import metrics as m
from interest.bundle import ModelBundle
from interest.clock import Clock
from interest.errors import EncoderUnavailable, ServiceUnavailable
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
from streams.dirty import DirtyUsers, Mark
from streams.outbox import Outbox, Record, backoff_s
from streams.windows import Held, WindowStore

log = logging.getLogger(__name__)

_RECENT_TEXT_CHARS: Final = 128


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record of the change feed ``user-vectors``: a hint; consumers compare tokens."""

    user_id: str
    model_id: str
    token: Token
    event_time_ms: int
    encode_time_ms: int


class _Job(msgspec.Struct, frozen=True):
    mark: Mark
    held: Held


class MicroBatches:
    """Encodes dirty users for one model until cancelled."""

    def __init__(
        self,
        *,
        bundle: ModelBundle,
        encoder: UserEncoder,
        windows: WindowStore,
        dirty: DirtyUsers,
        lookup: ItemLookup,
        vectors: UserVectorStore,
        outbox: Outbox,
        feed_topic: str,
        budget_tokens: int,
        executor: Executor,
        clock: Clock,
        metrics: Metrics,
        source_offset: Callable[[int], int],
        refused: Callable[[Sequence[tuple[Mark, Token]]], Awaitable[None]],
    ) -> None:
        self._model_id = bundle.model_id
        self._encoder = encoder
        self._windows = windows
        self._dirty = dirty
        self._lookup = lookup
        self._vectors = vectors
        self._outbox = outbox
        self._feed_topic = feed_topic
        self._budget = budget_tokens
        self._executor = executor
        self._clock = clock
        self._metrics = metrics
        self._source_offset = source_offset
        self._refused = refused
        self._announcing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Turn dirty users into vectors; a sick encoder or store is retried, never skipped."""
        try:
            await self._run()
        finally:
            if self._announcing is not None:
                self._announcing.cancel()

    async def _run(self) -> None:
        attempt = 0
        while True:
            await self._dirty.wait()
            marks = self._dirty.take(self._cost, self._budget)
            try:
                await self._process(marks)
                if attempt:
                    log.info("micro-batches go on, after %d tries", attempt + 1)
                attempt = 0
            except (ServiceUnavailable, EncoderUnavailable) as error:
                self._dirty.put_back(marks)
                self._metrics.count(m.RETRIES, 1, type(error).__name__)
                log.warning("a micro-batch of %d users waits: %s", len(marks), error)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1

    def _cost(self, mark: Mark) -> int:
        held = self._held(mark)
        return 1 if held is None else max(1, self._encoder.n_tokens(held.window))

    def _held(self, mark: Mark) -> Held | None:
        partition = self._windows.partitions.get(mark.partition)
        return None if partition is None else partition.held.get(mark.subject_id)

    async def _process(self, marks: Sequence[Mark]) -> None:
        jobs: list[_Job] = []
        gone: list[Mark] = []
        for mark in marks:
            held = self._held(mark)
            if held is None:
                gone.append(mark)  # the partition was revoked; its new owner encodes it
            else:
                jobs.append(_Job(mark, msgspec.structs.replace(held)))
        self._dirty.confirm(gone)
        if not jobs:
            return
        items = await self._lookup.fetch(
            sorted({item_id for job in jobs for item_id in job.held.window.item_ids})
        )
        rows = await self._encode(jobs, items)
        updates = [self._update(job, rows[i]) for i, job in enumerate(jobs) if i in rows]
        began = time.perf_counter()
        answers = await self._vectors.upsert(updates)
        self._metrics.observe(m.UPSERT, time.perf_counter() - began)
        self._settle([job for i, job in enumerate(jobs) if i in rows], updates, answers, items)
        lost = [job.mark for i, job in enumerate(jobs) if i not in rows]
        self._dirty.confirm(lost)
        await self._resolve(jobs, updates, answers)

    async def _encode(
        self, jobs: Sequence[_Job], items: Mapping[str, EncodedItem]
    ) -> dict[int, NDArray[np.float32]]:
        """Encode; a window that fails is found by bisection, so that the others succeed.

        Returns:
            job index → vector; an index is missing where that window alone cannot be encoded.
        """
        loop = asyncio.get_running_loop()
        rows: dict[int, NDArray[np.float32]] = {}
        began = time.perf_counter()

        async def encode(first: int, last: int) -> None:
            part = [job.held.window for job in jobs[first:last]]
            try:
                matrix = await loop.run_in_executor(
                    self._executor, self._encoder.encode, part, items
                )
                if not np.isfinite(matrix).all():
                    raise FloatingPointError("the encoder gave NaN or infinity")
            except EncoderUnavailable:
                raise
            except Exception as error:
                if last - first == 1:
                    self._metrics.count(m.POISON)
                    log.exception("one window cannot be encoded; its vector stays", exc_info=error)
                    return
                middle = (first + last) // 2
                await encode(first, middle)
                await encode(middle, last)
            else:
                rows.update(zip(range(first, last), matrix, strict=True))

        await encode(0, len(jobs))
        self._metrics.observe(m.ENCODE, time.perf_counter() - began)
        self._metrics.observe(m.BATCH_USERS, len(jobs))
        return rows

    def _update(self, job: _Job, row: NDArray[np.float32]) -> VectorUpdate:
        window = job.held.window
        vector = UserVector(
            user_id=window.subject_id,
            model_id=self._model_id,
            token=job.held.token,
            event_time_ms=window.event_time_ms,
            encode_time_ms=self._clock(),
            n_events=len(window.events),
            vectors=row[np.newaxis] if row.any() else np.zeros((0, row.size), np.float32),
            source_partition=job.mark.partition,
            source_offset=self._source_offset(job.mark.partition),
        )
        return VectorUpdate(vector, recent_behaviours(window))

    def _settle(
        self,
        jobs: Sequence[_Job],
        updates: Sequence[VectorUpdate],
        answers: Sequence[Token | None],
        items: Mapping[str, EncodedItem],
    ) -> None:
        now_ms = self._clock()
        confirmed: list[Mark] = []
        freshness_s: list[float] = []
        for job, answer in zip(jobs, answers, strict=True):
            # Refused by a higher revision of our own: a newer vector is readable already.
            if answer is None or answer[:2] == job.held.token[:2]:
                confirmed.append(job.mark)
                if job.mark.since_ms is not None:
                    freshness_s.append(max(0, now_ms - job.mark.since_ms) / 1000)
                self._note_unresolved(job, items)
        self._dirty.confirm(confirmed)
        self._metrics.count(m.VECTORS, len(confirmed))
        self._metrics.observe_many(m.FRESHNESS, freshness_s)
        self._metrics.set(m.DIRTY, len(self._dirty))

    def _note_unresolved(self, job: _Job, items: Mapping[str, EncodedItem]) -> None:
        window = job.held.window
        unresolved = not window.item_ids <= items.keys()
        partition = self._windows.partitions.get(job.mark.partition)
        held = self._held(job.mark)
        # A window that moved on since is dirty again and will be looked at then.
        if partition and held and held.window is window and window.unresolved != unresolved:
            partition.replace(
                msgspec.structs.replace(window, unresolved=unresolved), held.generation
            )

    async def _resolve(
        self,
        jobs: Sequence[_Job],
        updates: Sequence[VectorUpdate],
        answers: Sequence[Token | None],
    ) -> None:
        by_user = {job.held.window.subject_id: job for job in jobs}
        stored: list[VectorUpdate] = []
        refusals: list[tuple[Mark, Token]] = []
        for update, answer in zip(updates, answers, strict=True):
            if answer is None:
                stored.append(update)
            elif answer[:2] != update.vector.token[:2]:
                refusals.append((by_user[update.vector.user_id].mark, answer))
        if refusals:
            self._metrics.count(m.REFUSED, len(refusals))
            await self._refused(refusals)
        if self._announcing is not None:
            await self._announcing  # at most one batch of announcements is under way
        self._announcing = asyncio.create_task(self._announce(stored))

    async def _announce(self, stored: Sequence[VectorUpdate]) -> None:
        await self._outbox.send_all(
            [
                Record(
                    topic=self._feed_topic,
                    key=update.vector.user_id.encode(),
                    value=msgspec.json.encode(
                        Announcement(
                            user_id=update.vector.user_id,
                            model_id=update.vector.model_id,
                            token=update.vector.token,
                            event_time_ms=update.vector.event_time_ms,
                            encode_time_ms=update.vector.encode_time_ms,
                        )
                    ),
                )
                for update in stored
            ]
        )


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
