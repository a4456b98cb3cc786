"""The worker: everything between the Kafka topics and the readable vectors, as one service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from aiokafka.errors import KafkaError
from faust.types import TP

from interest.bundle import LiveModel, ModelBundle
from interest.clock import Clock, system_clock
from interest.errors import BadInput, InterestError, ServiceUnavailable
from interest.forgetting import Marker, subject_hash
from interest.ports import (
    ItemEncoder,
    ItemLookup,
    ItemStore,
    Metrics,
    Sealer,
    UserEncoder,
    UserVectorStore,
)
from interest.pseudonyms import Pseudonyms, check_pseudonyms
from interest.sealing import IN_THE_CLEAR
from interest.settings import Settings
from interest.vector import Token
from streams.app import create_app
from streams.assignment import Assignment
from streams.catalogue import Catalogue
from streams.change_feed import ChangeFeed
from streams.checkpoint import Checkpoint
from streams.control import ControlFeed, Order
from streams.dead_letter_desk import letters_of, remove
from streams.dirty import DirtyUsers, Mark
from streams.encoding import WindowEncoding
from streams.forget import Forgetting
from streams.holders import Holders
from streams.idle import IdleUsers
from streams.ingest import Ingest
from streams.items_feed import ItemsFeed
from streams.letter_sealing import letters_sealed
from streams.micro_batches import MicroBatches, Refused
from streams.outbox import Outbox
from streams.ownership import Ownership
from streams.poison import Poison
from streams.progress import Progress
from streams.topics import TopicNames, ensure_topics, owned_partitions
from streams.watchers import Lag, RedisLife, Service, Watchdog, watch_lag
from streams.window_records import WindowRecords
from streams.windows import Partition

log = logging.getLogger(__name__)

_FINAL_CHECKPOINT_S: Final = 12.0
_STOP_S: Final = 6.0
_REVOKED_CHECKPOINT_S: Final = 3.0
_DAY_MS: Final = 86_400_000


class WorkerFailed(InterestError):
    """The worker cannot go on; its supervisor should start it again."""

    exit_code = 5


class Worker:
    """Owns some partitions of the group, and keeps the vectors of their users fresh.

    Raises:
        BadInput: settings contradict each other.
    """

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
        sealer: Sealer = IN_THE_CLEAR,
        clock: Clock = system_clock,
    ) -> None:
        span_days = bundle.config.window.span_ms / _DAY_MS
        if settings.idle_days < span_days:
            raise BadInput(
                f"INTEREST_IDLE_DAYS is {settings.idle_days:g}, shorter than a window "
                f"({span_days:g} days): users would come back without what still counts"
            )
        self._settings = settings
        self._bundle = bundle
        self._item_encoder = item_encoder
        self._user_encoder = user_encoder
        self._vectors = vectors
        self._items = items
        self._lookup = lookup
        self._metrics = metrics
        self._collection = collection
        self._sealer = sealer
        self._pseudonym = Pseudonyms(settings.pseudonym_key)
        check_pseudonyms(settings.pseudonym_key, encrypted=sealer.seals)
        self._clock = clock
        self._names = TopicNames.of(settings)
        self._sources = (self._names.behaviours, self._names.routed, self._names.forget)
        self._subject_hash = partial(subject_hash, settings.forget_key)
        self.dirty = DirtyUsers(1 / settings.user_encodes_per_s)
        self.progress = Progress()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._user_device = ThreadPoolExecutor(1, "user-encoder")
        self._item_device = ThreadPoolExecutor(1, "item-encoder")
        self._recovered = asyncio.Event()

    async def start(self) -> None:
        """Join the group; return when the first assignment is recovered and being read.

        Raises:
            ServiceUnavailable: the broker or a store does not answer.
            TopicMismatch: the topics on the broker do not fit together.
        """
        topics = await ensure_topics(self._settings)
        await self._items.open()
        seal = letters_sealed(self._names.dead_letters, self._sealer)
        self._outbox = Outbox(self._settings, self._metrics, seal)
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
            ("forgetting", self._forgetting.run()),
            ("idle users", self._idle_users.run()),
            ("control", self._control.run()),
            ("broker", self._broker.watch()),
            ("redis", self._redis.watch()),
            ("lag", watch_lag(self._lag, self.unready, self.dirty, self.progress, self._metrics)),
            ("faust", self._watch_faust()),
        ):
            self._spawn(name, job)
        if self._settings.watchdog_s:
            self._spawn("watchdog", self._watchdog.run())
        await self._or_failure(self._recovered.wait())

    def _build(self, n_partitions: int) -> None:
        records = WindowRecords(self._names.windows, self._sealer)
        self._app, table = create_app(
            self._settings, self._names, n_partitions, self._on_events, self._on_items,
            lambda error: self._fail(WorkerFailed(f"an agent failed: {error!r}")),
        )  # fmt: skip
        self.windows = table.windows
        self.windows.records = records
        self.windows.hash_of = self._subject_hash
        self.windows.on_recovered = self._on_recovered
        self.windows.on_dropped = self.dirty.drop_partition
        self.windows.on_generation = self.progress.start
        self._app.on_partitions_revoked.connect(self._on_revoked)
        self._build_intake(n_partitions, records)
        self._build_encoding(records)
        self._build_forgetting(n_partitions)
        self._build_watchers(n_partitions)

    def _build_intake(self, n_partitions: int, records: WindowRecords) -> None:
        self._checkpoint = Checkpoint(
            settings=self._settings, records=records, windows=self.windows, dirty=self.dirty,
            progress=self.progress, outbox=self._outbox, vectors=self._vectors,
            metrics=self._metrics,
        )  # fmt: skip
        self._holders = Holders(self.windows, self.dirty, self.progress)
        self.feed.on_changed = self._holders.changed
        self._ingest = Ingest(
            names=self._names, n_partitions=n_partitions, limits=self._bundle.config.window,
            windows=self.windows, dirty=self.dirty, progress=self.progress, outbox=self._outbox,
            known_items=self.feed.known, max_uncommitted=self._settings.max_uncommitted,
            pseudonym=self._pseudonym, sealer=self._sealer, clock=self._clock,
            metrics=self._metrics,
        )  # fmt: skip
        self._catalogue = Catalogue(
            names=self._names, model_id=self._bundle.model_id, encoder=self._item_encoder,
            store=self._items, progress=self.progress, outbox=self._outbox,
            executor=self._item_device, clock=self._clock, metrics=self._metrics,
        )  # fmt: skip

    def _build_encoding(self, records: WindowRecords) -> None:
        self._ownership = Ownership(
            model_id=self._bundle.model_id, records=records, windows=self.windows,
            dirty=self.dirty, progress=self.progress, vectors=self._vectors, outbox=self._outbox,
        )  # fmt: skip
        self._assignment = Assignment(
            topics=self._sources, catch_up_s=self._settings.catch_up_s, windows=self.windows,
            dirty=self.dirty, progress=self.progress, ownership=self._ownership,
            known_items=self.feed.known, metrics=self._metrics,
        )  # fmt: skip
        self._change_feed = ChangeFeed(
            self._outbox, self._names.user_vectors, self._settings.session_timeout_s
        )
        limits = self._bundle.config.window
        encoding = WindowEncoding(self._user_encoder, self._user_device, limits)
        self._poison = Poison(
            names=self._names, limits=limits, encoding=encoding, windows=self.windows,
            dirty=self.dirty, progress=self.progress, outbox=self._outbox, clock=self._clock,
            metrics=self._metrics,
        )  # fmt: skip
        self._batches = MicroBatches(
            bundle=self._bundle, encoder=self._user_encoder, encoding=encoding,
            windows=self.windows, dirty=self.dirty, lookup=self._lookup, vectors=self._vectors,
            feed=self._change_feed, budget_tokens=self._settings.batch_tokens, clock=self._clock,
            metrics=self._metrics, source_offset=self._source_offset, refused=self._on_refused,
            poisoned=self._poison.remove,
        )  # fmt: skip

    def _build_forgetting(self, n_partitions: int) -> None:
        self._forgetting = Forgetting(
            names=self._names, n_partitions=n_partitions, pseudonym=self._pseudonym,
            windows=self.windows, dirty=self.dirty, progress=self.progress,
            checkpoint=self._checkpoint, vectors=self._vectors, feed=self._change_feed, outbox=self._outbox,
            remove_letters=self._remove_letters, clock=self._clock, metrics=self._metrics,
        )  # fmt: skip
        self._idle_users = IdleUsers(
            idle_days=self._settings.idle_days, marker_days=self._settings.forget_marker_days,
            windows=self.windows, dirty=self.dirty, clock=self._clock, metrics=self._metrics,
        )  # fmt: skip

    def _build_watchers(self, n_partitions: int) -> None:
        topics = (*self._sources, self._names.catalogue)
        self._control = ControlFeed(self._settings, self._obey, self._metrics)
        self._broker = Service("Kafka", self._outbox.ping)
        self._redis = Service("Redis", RedisLife(self._vectors, self._renew_redis).ping)
        self._lag = Lag(lambda: self._app.chunk_consumer, topics, self.progress)
        self._watchdog = Watchdog(
            limit_s=self._settings.watchdog_s,
            consumer=lambda: self._app.chunk_consumer,
            expected=[TP(topic, n) for topic in topics for n in range(n_partitions)],
            own=self._lag.partitions,
            owned=partial(owned_partitions, self._settings),
            work=lambda: (
                tuple(self.progress.positions.items()), self.dirty.n_settled, len(self.feed.known)
            ),
            services=lambda: (self._broker.away, self._redis.away, self._batches.stuck),
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
        if chunk.tp.topic == self._names.forget:
            await self._forgetting.handle(chunk)
        else:
            await self._ingest.handle(chunk)

    async def _on_items(self, chunk: Any) -> None:
        await self._catalogue.handle(chunk)

    def _on_recovered(self, partitions: Iterable[Partition]) -> None:
        self._recovered.set()
        recovered = list(partitions)
        self._assignment.hold_back(recovered)
        self._spawn("assignment", self._assignment.settle(recovered, self._app.chunk_consumer))

    async def _on_revoked(self, *args: Any, **kwargs: Any) -> None:
        try:
            await asyncio.wait_for(
                self._checkpoint.take(self._app.chunk_consumer), _REVOKED_CHECKPOINT_S
            )
        except (TimeoutError, KafkaError, ServiceUnavailable) as error:
            log.info("revoked without a checkpoint (%r); the next owner reads again", error)

    # What the parts call.

    def _source_offset(self, partition: int) -> int:
        return self.progress.positions.get(TP(self._names.behaviours, partition), 0) - 1

    async def _on_refused(self, refusals: Sequence[Refused]) -> None:
        by_token: list[tuple[Mark, Token]] = []
        for refusal in refusals:
            if isinstance(refusal.by, Marker):
                await self._forgetting.adopt(refusal.job, refusal.by)
            else:
                by_token.append((refusal.job.mark, refusal.by))
        await self._ownership.refused(self._app.chunk_consumer, by_token)

    async def _remove_letters(self, user_ids: Collection[str]) -> None:
        letters = await letters_of(self._settings, user_ids, self._sealer)
        if letters:
            await remove(self._settings, self._outbox, letters)

    def _obey(self, order: Order) -> None:
        log.info("ordered to %s", order.kind)
        for partition in self.windows.partitions.values():
            for subject_id in partition.held:
                self.dirty.mark(subject_id, partition.number, None)

    async def _renew_redis(self) -> None:
        """Fill a Redis that was emptied or restored from an older copy."""
        await self._point_readers()
        for partition in list(self.windows.partitions.values()):
            await self._vectors.restore_markers(
                [marker for marker in partition.markers.values() if marker.place]
            )
            await self._assignment.reconcile(partition)
        await self._checkpoint.publish_popular(list(self.windows.partitions.values()))

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
        reasons.extend(
            away for away in (self._broker.away, self._redis.away, self._batches.stuck) if away
        )
        if not self._recovered.is_set():
            reasons.append("recovering windows from the changelog")
        elif self._app.rebalancing:
            reasons.append("the consumer group is rebalancing")
        return reasons

    async def lag(self) -> dict[str, int]:
        """Count the records of each source topic that this worker has yet to read."""
        return await self._lag.by_topic()

    async def idle(self) -> bool:
        """Tell whether everything published so far is read and its vectors are readable."""
        # In the order in which work flows: what is passed on is seen in the next place.
        return not (
            sum((await self.lag()).values())
            or self._forgetting.pending
            or await self.feed.behind()
            or self._holders.pending
            or len(self.dirty)
        )

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
