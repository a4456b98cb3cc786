"""The worker: everything between the Kafka topics and the readable vectors, as one service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiokafka.errors import KafkaError
from faust.types import TP

from interest import metrics as m
from interest.bundle import LiveModel, ModelBundle
from interest.clock import Clock, system_clock
from interest.errors import InterestError, ServiceUnavailable
from interest.ports import (
    ItemEncoder,
    ItemLookup,
    ItemStore,
    Metrics,
    UserEncoder,
    UserVectorStore,
)
from interest.settings import Settings
from interest.vector import Token
from streams.app import create_app
from streams.catalogue import Catalogue
from streams.checkpoint import Checkpoint
from streams.dirty import DirtyUsers, Mark
from streams.holders import Holders
from streams.ingest import Ingest
from streams.items_feed import ItemsFeed
from streams.micro_batches import MicroBatches
from streams.outbox import Outbox, backoff_s
from streams.ownership import Ownership
from streams.progress import Progress
from streams.topics import TopicNames, ensure_topics
from streams.windows import Partition

log = logging.getLogger(__name__)

_FINAL_CHECKPOINT_S: Final = 12.0
_STOP_S: Final = 6.0
_REVOKED_CHECKPOINT_S: Final = 3.0
_LAG_EVERY_S: Final = 1.0
_BROKER_EVERY_S: Final = 2.0


class WorkerFailed(InterestError):
    """The worker cannot go on; its supervisor should start it again."""

    exit_code = 5


class Worker:
    """Owns some partitions of the group, and keeps the vectors of their users fresh."""

    def __init__(
        self,
        *,
        settings: Settings,
        bundle: ModelBundle,
        item_encoder: ItemEncoder,
        user_encoder: UserEncoder,
        vectors: UserVectorStore,
        items: ItemStore,
        lookup: ItemLookup,
        metrics: Metrics,
        collection: str,
        clock: Clock = system_clock,
    ) -> None:
        self._settings = settings
        self._bundle = bundle
        self._item_encoder = item_encoder
        self._user_encoder = user_encoder
        self._vectors = vectors
        self._items = items
        self._lookup = lookup
        self._metrics = metrics
        self._collection = collection
        self._clock = clock
        self._names = TopicNames.of(settings)
        self.dirty = DirtyUsers()
        self.progress = Progress()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._user_device = ThreadPoolExecutor(1, "user-encoder")
        self._item_device = ThreadPoolExecutor(1, "item-encoder")
        self._recovered = asyncio.Event()
        self._broker_away = ""

    async def start(self) -> None:
        """Join the group; return when the first assignment is recovered and being read.

        Raises:
            ServiceUnavailable: the broker or a store does not answer.
            TopicMismatch: the topics on the broker do not fit together.
        """
        topics = await ensure_topics(self._settings)
        await self._items.open()
        self._outbox = Outbox(self._settings, self._metrics)
        await self._outbox.start()
        self.feed = ItemsFeed(
            self._settings, self._names.items_encoded, self._bundle.model_id,
            self._items, self._lookup, self._metrics,
        )  # fmt: skip
        self._build(topics.partitions)
        self._spawn("items feed", self.feed.run())
        await self._or_failure(self.feed.caught_up.wait())
        await self._point_readers()
        await self._app.start()
        for name, job in (
            ("micro-batches", self._batches.run()),
            ("holders", self._holders.run()),
            ("checkpoint", self._checkpoint.run(self._app.chunk_consumer)),
            ("broker", self._watch_broker()),
            ("lag", self._watch_lag()),
            ("faust", self._watch_faust()),
        ):
            self._spawn(name, job)
        await self._or_failure(self._recovered.wait())

    def _build(self, n_partitions: int) -> None:
        self._app, table = create_app(
            self._settings, self._names, n_partitions, self._on_events, self._on_items,
            lambda error: self._fail(WorkerFailed(f"an agent failed: {error!r}")),
        )  # fmt: skip
        self.windows = table.windows
        self.windows.on_recovered = self._on_recovered
        self.windows.on_dropped = self.dirty.drop_partition
        self.windows.on_generation = self.progress.start
        self._app.on_partitions_revoked.connect(self._on_revoked)
        self._ownership = Ownership(
            model_id=self._bundle.model_id, changelog=self._names.windows, windows=self.windows,
            dirty=self.dirty, progress=self.progress, vectors=self._vectors, outbox=self._outbox,
        )  # fmt: skip
        self._holders = Holders(self.windows, self.dirty, self.progress)
        self.feed.on_changed = self._holders.changed
        self._ingest = Ingest(
            names=self._names, n_partitions=n_partitions, limits=self._bundle.config.window,
            windows=self.windows, dirty=self.dirty, progress=self.progress, outbox=self._outbox,
            known_items=self.feed.known, clock=self._clock, metrics=self._metrics,
        )  # fmt: skip
        self._catalogue = Catalogue(
            names=self._names, model_id=self._bundle.model_id, encoder=self._item_encoder,
            store=self._items, progress=self.progress, outbox=self._outbox,
            executor=self._item_device, clock=self._clock, metrics=self._metrics,
        )  # fmt: skip
        self._batches = MicroBatches(
            bundle=self._bundle, encoder=self._user_encoder, windows=self.windows,
            dirty=self.dirty, lookup=self._lookup, vectors=self._vectors, outbox=self._outbox,
            feed_topic=self._names.user_vectors, budget_tokens=self._settings.batch_tokens,
            executor=self._user_device, clock=self._clock, metrics=self._metrics,
            source_offset=self._source_offset, refused=self._on_refused,
        )  # fmt: skip
        self._checkpoint = Checkpoint(
            settings=self._settings, changelog=self._names.windows, windows=self.windows,
            dirty=self.dirty, progress=self.progress, outbox=self._outbox,
            vectors=self._vectors, metrics=self._metrics,
        )  # fmt: skip

    async def _point_readers(self) -> None:
        live = LiveModel(
            model_id=self._bundle.model_id, collection=self._collection, dim=self._bundle.dim
        )
        before = await self._vectors.live_model()
        if before != live:
            if before is not None:
                log.warning("live model: %s instead of %s", live.model_id, before.model_id)
            await self._vectors.set_live_model(live)

    # What Faust calls.

    async def _on_events(self, chunk: Any) -> None:
        await self._ingest.handle(chunk)

    async def _on_items(self, chunk: Any) -> None:
        await self._catalogue.handle(chunk)

    def _on_recovered(self, partitions: Iterable[Partition]) -> None:
        self._recovered.set()
        self._spawn("reconcile", self._reconcile(list(partitions)))

    async def _on_revoked(self, *args: Any, **kwargs: Any) -> None:
        try:
            await asyncio.wait_for(
                self._checkpoint.take(self._app.chunk_consumer), _REVOKED_CHECKPOINT_S
            )
        except (TimeoutError, KafkaError, ServiceUnavailable) as error:
            log.info("revoked without a checkpoint (%r); the next owner reads again", error)

    def _source_offset(self, partition: int) -> int:
        return self.progress.positions.get(TP(self._names.behaviours, partition), 0) - 1

    async def _on_refused(self, refusals: Sequence[tuple[Mark, Token]]) -> None:
        await self._ownership.refused(self._app.chunk_consumer, refusals)

    async def _reconcile(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            for subject_id, held in partition.held.items():
                if held.window.unresolved and held.window.item_ids & self.feed.known.keys():
                    self.dirty.mark(subject_id, partition.number, None)
            attempt = 0
            while self.windows.partitions.get(partition.number) is partition:
                try:
                    n_marked = await self._ownership.reconcile(partition, self.feed.known)
                except ServiceUnavailable as error:
                    log.warning("reconciling partition %d waits: %s", partition.number, error)
                    await asyncio.sleep(backoff_s(attempt))
                    attempt += 1
                else:
                    if n_marked:
                        log.info("partition %d: %d vectors renewed", partition.number, n_marked)
                    break

    # Running and watching.

    def _spawn(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the %s task failed", task.get_name(), exc_info=error)
            self._fail(WorkerFailed(f"the {task.get_name()} task failed: {error!r}"))

    def _fail(self, error: WorkerFailed) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _watch_faust(self) -> None:
        await self._app.wait_until_stopped()
        reason = self._app.crash_reason
        self._fail(WorkerFailed(f"Faust stopped: {reason!r}" if reason else "Faust stopped"))

    async def _or_failure(self, wait: Coroutine[Any, Any, Any]) -> None:
        waiting = asyncio.ensure_future(wait)
        await asyncio.wait({waiting, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            waiting.cancel()
            self._failed.result()

    async def failure(self) -> None:
        """Wait until the worker cannot go on, and raise why.

        Raises:
            WorkerFailed: always.
        """
        await asyncio.shield(self._failed)

    def unready(self) -> list[str]:
        """Say why this worker is not ready; nothing where it is."""
        reasons: list[str] = []
        if self._failed.done():
            reasons.append("the worker has failed")
        if self._broker_away:
            reasons.append(self._broker_away)
        if not self._recovered.is_set():
            reasons.append("recovering windows from the changelog")
        elif self._app.rebalancing:
            reasons.append("the consumer group is rebalancing")
        return reasons

    async def lag(self) -> dict[str, int]:
        """Count the records of each source topic that this worker has yet to read."""
        consumer = self._app.chunk_consumer
        topics = (self._names.behaviours, self._names.routed, self._names.catalogue)
        tps = {tp for tp in consumer.assignment() if tp.topic in topics}
        ends = await consumer.highwaters(*tps) if tps else {}
        behind = dict.fromkeys(topics, 0)
        for tp in tps:
            read = self.progress.positions.get(tp, self.progress.committed.get(tp))
            if read is None:
                read = await consumer.position(tp) or 0
            behind[tp.topic] += max(0, (ends.get(tp) or 0) - read)
        return behind

    async def idle(self) -> bool:
        """Tell whether everything published so far is read and its vectors are readable."""
        # In the order in which work flows: what is passed on is seen in the next place.
        return not (
            sum((await self.lag()).values())
            or await self.feed.behind()
            or self._holders.pending
            or len(self.dirty)
        )

    async def _watch_broker(self) -> None:
        while True:
            try:
                await self._outbox.ping()
            except ServiceUnavailable as error:
                if not self._broker_away:
                    log.warning("%s; the worker waits for it", error)
                self._broker_away = str(error)
            else:
                if self._broker_away:
                    log.info("Kafka answers again")
                self._broker_away = ""
            await asyncio.sleep(_BROKER_EVERY_S)

    async def _watch_lag(self) -> None:
        while True:
            await asyncio.sleep(_LAG_EVERY_S)
            if self.unready():
                continue
            try:
                for topic, n in (await self.lag()).items():
                    self._metrics.set(m.LAG, n, topic)
            except KafkaError as error:
                log.debug("lag is not known: %s", error)

    async def stop(self) -> None:
        """Take a last checkpoint where the services answer, leave the group, stop."""
        if hasattr(self, "_app") and self._app.started and not self._app.crash_reason:
            try:
                await asyncio.wait_for(
                    self._checkpoint.take(self._app.chunk_consumer), _FINAL_CHECKPOINT_S
                )
            except (TimeoutError, KafkaError, ServiceUnavailable) as error:
                log.warning("stopped without a last checkpoint: %r", error)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # With the broker away each would wait for minutes; what they hold is read again.
        if hasattr(self, "_app"):
            await _within("Faust", self._app.stop())
        if hasattr(self, "_outbox"):
            await _within("the producer", self._outbox.stop())
        self._user_device.shutdown(wait=False)
        self._item_device.shutdown(wait=False)


async def _within(what: str, stopping: Coroutine[Any, Any, Any]) -> None:
    try:
        await asyncio.wait_for(stopping, _STOP_S)
    except TimeoutError:
        log.warning("%s did not stop in %g s", what, _STOP_S)
