"""The way from dirty users to readable vectors: form a micro-batch, encode it, upsert it.

A batch forms from whoever waits when the device is free, oldest first. There is no fixed delay:
at low load a batch is one user, under load it grows as far as :class:`BatchSize` lets it. Where so
many wait that the next batch is full already, it forms while the device computes this one; sooner
it would be small, and would hold its users up. Upserts run beside both::

    form      n+1          n+2
    encode    n            n+1          n+2
    upsert    n-1          n            n+1

At most one batch is formed ahead, and one is between device and store, so a store that is slow
stops the device, and users go on waiting in :class:`DirtyUsers`, each once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from interest import metrics as m
from interest.columns import item_ids_of
from interest.errors import EncoderUnavailable, InterestError, ServiceUnavailable
from interest.item import EncodedItem
from interest.ports import ItemLookup, Metrics, UserEncoder
from streams.batch_size import BatchSize
from streams.change_feed import ChangeFeed
from streams.dirty import DirtyUsers, Mark
from streams.encoding import WindowEncoding
from streams.outbox import backoff_s
from streams.upserts import EncodedUsers, Job, Upserts
from streams.window_records import Held
from streams.windows import WindowStore

log = logging.getLogger(__name__)

#: Tokens of the users who are taken in one go.
_PART_TOKENS: Final = 1_024


class Poisoned(msgspec.Struct, frozen=True):
    """A user whose window cannot be encoded, and what the encoder said."""

    job: Job
    error: Exception
    items: Mapping[str, EncodedItem]


class _Batch(msgspec.Struct, frozen=True, eq=False):
    jobs: Sequence[Job]
    items: Mapping[str, EncodedItem]
    unknown: frozenset[str]
    n_tokens: int


class _Stage:
    """Retries of one stage, and why it waits."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._attempt = 0
        #: What it waits for; None while it works.
        self.error: InterestError | None = None

    async def failed(self, error: InterestError, n_users: int) -> None:
        """Wait before the next try, longer each time."""
        self.error = error
        self._metrics.count(m.RETRIES, 1, type(error).__name__)
        log.warning("a micro-batch of %d users waits: %s", n_users, error)
        await asyncio.sleep(backoff_s(self._attempt))
        self._attempt += 1

    def worked(self) -> None:
        """Begin anew."""
        if self._attempt:
            log.info("micro-batches go on, after %d tries", self._attempt + 1)
        self._attempt, self.error = 0, None


class MicroBatches:
    """Encodes dirty users for one model until cancelled.

    Args:
        poisoned: settles users whose window fails alone; the marks are still in flight.
    """

    def __init__(
        self,
        *,
        encoder: UserEncoder,
        encoding: WindowEncoding,
        windows: WindowStore,
        dirty: DirtyUsers,
        lookup: ItemLookup,
        upserts: Upserts,
        feed: ChangeFeed,
        size: BatchSize,
        metrics: Metrics,
        poisoned: Callable[[Poisoned], Awaitable[None]],
    ) -> None:
        self._encoder = encoder
        self._encoding = encoding
        self._windows = windows
        self._dirty = dirty
        self._lookup = lookup
        self._upserts = upserts
        self._feed = feed
        self._size = size
        self._metrics = metrics
        self._poisoned = poisoned
        self._encoded: asyncio.Queue[EncodedUsers] = asyncio.Queue(1)
        self._stages = {name: _Stage(metrics) for name in ("form", "encode", "upsert")}

    @property
    def stuck(self) -> str:
        """Why no vector can be written at present; empty while they are."""
        return next((str(s.error) for s in self._stages.values() if s.error is not None), "")

    @property
    def away(self) -> str:
        """The same, where a service is the reason: a device that failed may need a new process."""
        errors = (stage.error for stage in self._stages.values())
        return next((str(error) for error in errors if isinstance(error, ServiceUnavailable)), "")

    async def run(self) -> None:
        """Turn dirty users into vectors; a sick encoder or store is retried, never skipped."""
        try:
            async with asyncio.TaskGroup() as stages:
                stages.create_task(self._encode_all(stages))
                stages.create_task(self._upsert_all())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            if not self._encoded.empty():
                self._put_back(self._encoded.get_nowait().jobs)
            self._feed.close()

    async def _encode_all(self, stages: asyncio.TaskGroup) -> None:
        batch: _Batch | None = None
        formed: _Batch | None = None
        try:
            while True:
                batch, formed = formed or await self._form(), None
                encoding = stages.create_task(self._encode(batch))
                if self._size.is_full(self._dirty.n_ready):
                    formed = await self._form()
                await encoding
        finally:
            # A task that is cancelled before its first step puts nothing back itself.
            for unsettled in (batch, formed):
                if unsettled is not None:
                    self._put_back(unsettled.jobs)

    async def _form(self) -> _Batch:
        """Wait for users, and gather what the encoder needs of them."""
        stage = self._stages["form"]
        while True:
            await self._dirty.wait()
            marks, n_tokens = await self._take(self._size.limit(self._dirty.n_ready))
            jobs = self._jobs(marks)
            if not jobs:
                continue
            try:
                item_ids = item_ids_of([job.held.window for job in jobs])
                items = await self._lookup.fetch(item_ids)
            except ServiceUnavailable as error:
                self._put_back(jobs)
                await stage.failed(error, len(jobs))
            except BaseException:
                self._put_back(jobs)
                raise
            else:
                stage.worked()
                unknown: frozenset[str] = frozenset()
                if len(items) < len(item_ids):
                    unknown = frozenset(item_id for item_id in item_ids if item_id not in items)
                return _Batch(jobs, items, unknown, n_tokens)

    async def _take(self, budget: int) -> tuple[list[Mark], int]:
        """Take the users who waited longest, and fold their windows; give what they cost.

        In parts, between which the loop serves intake, heartbeats and probes.
        """
        marks: list[Mark] = []
        spent = 0
        try:
            while (first := self._dirty.first()) is not None:
                if marks:
                    if spent + self._cost(first) > budget:
                        break
                    await asyncio.sleep(0)
                part = self._dirty.take(self._cost, min(_PART_TOKENS, budget - spent))
                marks += part
                spent += sum(map(self._cost, part))
        except BaseException:
            self._dirty.put_back(marks)
            raise
        return marks, spent

    def _cost(self, mark: Mark) -> int:
        held = self._held(mark)
        return 1 if held is None else max(1, self._encoder.n_tokens(held.window))

    def _jobs(self, marks: Sequence[Mark]) -> list[Job]:
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
        return jobs

    def _held(self, mark: Mark) -> Held | None:
        partition = self._windows.partitions.get(mark.partition)
        return None if partition is None else partition.fold(mark.subject_id)

    async def _encode(self, batch: _Batch) -> None:
        stage = self._stages["encode"]
        left = list(batch.jobs)  # ours to put back; the others are the next stage's
        try:
            began = time.perf_counter()
            encoded = await self._encoding.encode([job.held.window for job in left], batch.items)
            took_s = time.perf_counter() - began
            self._metrics.observe(m.ENCODE, took_s)
            self._metrics.observe(m.BATCH_USERS, len(left))
            self._size.observe(len(left), batch.n_tokens, took_s)
            order = sorted(encoded.rows)
            if order:
                jobs = [batch.jobs[i] for i in order]
                rows = [encoded.rows[i] for i in order]
                await self._encoded.put(EncodedUsers(jobs, rows, batch.unknown))
            left = [batch.jobs[i] for i in encoded.failures]
            for i, error in encoded.failures.items():
                await self._poisoned(Poisoned(batch.jobs[i], error, batch.items))
        except (ServiceUnavailable, EncoderUnavailable) as error:
            self._put_back(left)
            await stage.failed(error, len(left))
        except BaseException:
            self._put_back(left)
            raise
        else:
            stage.worked()

    async def _upsert_all(self) -> None:
        stage = self._stages["upsert"]
        while True:
            encoded = await self._encoded.get()
            try:
                await self._upserts.store(encoded)
            except ServiceUnavailable as error:
                self._put_back(encoded.jobs)
                await stage.failed(error, len(encoded.jobs))
            except BaseException:
                self._put_back(encoded.jobs)
                raise
            else:
                stage.worked()

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """Let users wait again; who is settled already does not."""
        self._dirty.put_back([job.mark for job in jobs])
