"""The parts of a worker, made and connected in one place."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import msgspec
from faust.types import TP

from interest.bundle import ModelBundle
from interest.clock import Clock, system_clock
from interest.forgetting import Marker, subject_hash
from interest.item_table import ItemTable
from interest.ports import (
    ItemEncoder,
    ItemLookup,
    ItemStore,
    Metrics,
    Sealer,
    SparseEncoder,
    UserEncoder,
    UserVectorStore,
)
from interest.pseudonyms import Pseudonyms
from interest.sealing import IN_THE_CLEAR
from interest.settings import Settings
from interest.vector import Token
from streams.app import create_app
from streams.assignment import Assignment
from streams.batch_size import BatchSize
from streams.catalogue import Catalogue
from streams.change_feed import ChangeFeed
from streams.checkpoint import Checkpoint
from streams.compaction import Compaction
from streams.control import ControlFeed, Order
from streams.dead_letter_desk import letters_of, remove
from streams.dirty import DirtyUsers, Mark
from streams.encode_cap import EncodeCap
from streams.encoding import WindowEncoding
from streams.forget import Forgetting
from streams.holders import Holders
from streams.idle import IdleUsers
from streams.ingest import Ingest
from streams.items_feed import ItemsFeed
from streams.live_quality import LiveQuality
from streams.micro_batches import MicroBatches
from streams.outbox import Outbox
from streams.overtaken import Overtaken
from streams.ownership import Ownership
from streams.poison import Poison
from streams.progress import Progress
from streams.sources import SourceCheck
from streams.topics import TopicNames, owned_partitions
from streams.transport import ChunkConsumer
from streams.upserts import Refused, Upserts
from streams.watchers import Lag, RedisLife, Service, TopicShapes, Watchdog
from streams.window_folder import WindowFolder
from streams.window_map import SpilledWindows
from streams.window_records import WindowRecords

log = logging.getLogger(__name__)


#: Windows of each partition that stay in memory in any case.
LEAST_IN_MEMORY: Final = 1_000


class WorkerPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is given: its settings, a model, and what stands behind the ports."""

    settings: Settings
    bundle: ModelBundle
    item_encoder: ItemEncoder
    user_encoder: UserEncoder
    sparse_encoder: SparseEncoder | None = None
    vectors: UserVectorStore
    items: ItemStore
    lookup: ItemLookup
    metrics: Metrics
    collection: str
    sealer: Sealer = IN_THE_CLEAR
    clock: Clock = system_clock
    #: Where windows go that do not stay in memory; None: all stay.
    window_folder: WindowFolder | None = None


class WorkerParts:
    """Makes the parts; nothing runs before it is started.

    Args:
        counts: partitions by topic.
        outbox: connected.
        devices: one thread each for the encoders of users and of items.
        renew_redis: fills a Redis that was emptied or restored from an older copy.
        on_failure: told when an agent failed.
    """

    def __init__(
        self,
        ports: WorkerPorts,
        counts: Mapping[str, int],
        outbox: Outbox,
        *,
        devices: tuple[ThreadPoolExecutor, ThreadPoolExecutor],
        renew_redis: Callable[[], Awaitable[None]],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._ports = ports
        self._settings = ports.settings
        self.outbox = outbox
        self.names = TopicNames.of(self._settings)
        self._counts = counts
        self._n_partitions = n_partitions = counts[self.names.behaviours]
        self.sources = (self.names.behaviours, self.names.routed, self.names.forget)
        self.dirty = DirtyUsers(EncodeCap(self._settings.user_encodes_per_s))
        self.progress = Progress()
        self._pseudonym = Pseudonyms(self._settings.pseudonym_key)
        self._records = WindowRecords(self.names.windows, ports.sealer, ItemTable())
        self.app, table = create_app(
            self._settings, self.names, n_partitions, self._on_events, self._on_items, on_failure
        )
        self.app.on_seek = self.progress.seek
        self.progress.on_gap = lambda: self.consumer.read_again()
        self.windows = table.windows
        self.windows.records = self._records
        self.windows.limits = ports.bundle.config.window
        self.windows.hash_of = partial(subject_hash, self._settings.forget_key)
        spill = ports.window_folder
        if spill is not None:
            wanted = self._settings.windows_in_memory // n_partitions
            n_in_memory = max(LEAST_IN_MEMORY, wanted)
            self.windows.make_held = lambda number: SpilledWindows(
                spill.new(number), n_in_memory, number, self._records
            )
        self.windows.on_dropped = self.dirty.drop_partition
        self.windows.on_generation = self.progress.start
        self.feed = ItemsFeed(
            self._settings, self.names.items_encoded, ports.bundle.model_id,
            ports.items, ports.lookup, ports.metrics,
        )  # fmt: skip
        self.windows.known_items = self.feed.known
        self._make_intake(devices[1])
        self._make_encoding(devices[0])
        self._make_quality(devices[0])
        self._make_forgetting()
        self._make_watchers(renew_redis)

    @property
    def consumer(self) -> ChunkConsumer:
        """The consumer of the group; there once the app is started."""
        return self.app.chunk_consumer

    def _make_intake(self, device: ThreadPoolExecutor) -> None:
        ports = self._ports
        self.checkpoint = Checkpoint(
            settings=self._settings, records=self._records, windows=self.windows, dirty=self.dirty,
            progress=self.progress, outbox=self.outbox, vectors=ports.vectors,
            metrics=ports.metrics,
        )  # fmt: skip
        self.holders = Holders(self.windows, self.dirty, self.progress)
        self.feed.on_changed = self.holders.changed
        self.ingest = Ingest(
            names=self.names, n_partitions=self._n_partitions,
            windows=self.windows, dirty=self.dirty, progress=self.progress, outbox=self.outbox,
            max_uncommitted=self._settings.max_uncommitted,
            pseudonym=self._pseudonym, sealer=ports.sealer, clock=ports.clock,
            metrics=ports.metrics,
        )  # fmt: skip
        self.catalogue = Catalogue(
            names=self.names, model_id=ports.bundle.model_id, encoder=ports.item_encoder,
            sparse=ports.sparse_encoder, store=ports.items, progress=self.progress,
            outbox=self.outbox, executor=device, clock=ports.clock, metrics=ports.metrics,
        )  # fmt: skip
        self.overtaken = Overtaken(
            self._settings, self.names.catalogue, self.feed,
            owns=lambda number: TP(self.names.catalogue, number) in self.lag.partitions(),
            announce=lambda records: self.catalogue.announce(records, self.progress.generation),
        )  # fmt: skip

    def _make_encoding(self, device: ThreadPoolExecutor) -> None:
        ports = self._ports
        self.ownership = Ownership(
            model_id=ports.bundle.model_id, records=self._records, windows=self.windows,
            dirty=self.dirty, progress=self.progress, vectors=ports.vectors, outbox=self.outbox,
        )  # fmt: skip
        self.assignment = Assignment(
            topics=self.sources, check=self._source_check(),
            catch_up_s=self._settings.catch_up_s, windows=self.windows, dirty=self.dirty,
            progress=self.progress, ownership=self.ownership,
            known_items=self.feed.known, metrics=ports.metrics,
        )  # fmt: skip
        self.change_feed = ChangeFeed(
            self.outbox, self.names.user_vectors, self._settings.session_timeout_s,
            aligned=self._counts[self.names.user_vectors] == self._n_partitions,
        )  # fmt: skip
        limits = ports.bundle.config.window
        encoding = WindowEncoding(ports.user_encoder, device, limits, ports.sparse_encoder)
        self.poison = Poison(
            names=self.names, limits=limits, encoding=encoding, windows=self.windows,
            dirty=self.dirty, progress=self.progress, outbox=self.outbox, clock=ports.clock,
            metrics=ports.metrics,
        )  # fmt: skip
        upserts = Upserts(
            model_id=ports.bundle.model_id, windows=self.windows, dirty=self.dirty,
            vectors=ports.vectors, feed=self.change_feed, clock=ports.clock,
            metrics=ports.metrics, source_offset=self._source_offset, refused=self._on_refused,
        )  # fmt: skip
        target_s = self._settings.freshness_target_ms / 1000
        self.batches = MicroBatches(
            encoder=ports.user_encoder, encoding=encoding, windows=self.windows, dirty=self.dirty,
            lookup=ports.lookup, upserts=upserts, feed=self.change_feed,
            size=BatchSize(self._settings.batch_tokens, target_s), metrics=ports.metrics,
            poisoned=self.poison.remove,
        )  # fmt: skip

    def _make_quality(self, device: ThreadPoolExecutor) -> None:
        config, settings = self._ports.bundle.config, self._settings
        self.quality = LiveQuality(
            share=settings.live_quality_share, load=settings.live_quality_load,
            limits=config.window, bad_rating=config.decay.bad_rating,
            encoder=self._ports.user_encoder, device=device, lookup=self._ports.lookup,
            known_items=self.feed.known, metrics=self._ports.metrics,
        )  # fmt: skip
        self.feed.on_applied = self.quality.items_changed
        if settings.live_quality_share:
            self.windows.on_folded = self.quality.note

    def _make_forgetting(self) -> None:
        ports = self._ports
        self.forgetting = Forgetting(
            names=self.names, n_partitions=self._n_partitions, pseudonym=self._pseudonym,
            windows=self.windows, dirty=self.dirty, progress=self.progress,
            checkpoint=self.checkpoint, vectors=ports.vectors,
            feed=self.change_feed, outbox=self.outbox,
            remove_letters=self._remove_letters, clock=ports.clock, metrics=ports.metrics,
        )  # fmt: skip
        self.idle_users = IdleUsers(
            idle_days=self._settings.idle_days, marker_days=self._settings.forget_marker_days,
            windows=self.windows, compaction=Compaction(self.windows), dirty=self.dirty,
            clock=ports.clock, metrics=ports.metrics,
        )  # fmt: skip

    def _make_watchers(self, renew_redis: Callable[[], Awaitable[None]]) -> None:
        ports = self._ports
        topics = (*self.sources, self.names.catalogue)
        self.control = ControlFeed(self._settings, self._obey, ports.metrics)
        self.broker = Service("Kafka", TopicShapes(self.outbox, self._counts).ping)
        self.redis = Service("Redis", RedisLife(ports.vectors, renew_redis).ping)
        self.lag = Lag(lambda: self.consumer, topics, self.progress)
        self.watchdog = Watchdog(
            limit_s=self._settings.watchdog_s,
            consumer=lambda: self.consumer,
            expected=[TP(topic, n) for topic in topics for n in range(self._counts[topic])],
            own=self.lag.partitions,
            owned=partial(owned_partitions, self._settings),
            work=lambda: (
                tuple(self.progress.positions.items()), self.dirty.n_settled, len(self.feed.known),
                self.windows.n_restored,
            ),
            services=lambda: (
                self.broker.away, self.redis.away, self.batches.away, self.catalogue.away
            ),
        )  # fmt: skip

    async def _on_events(self, chunk: Any) -> None:
        if chunk.tp.topic == self.names.forget:
            await self.forgetting.handle(chunk)
        else:
            await self.ingest.handle(chunk)

    async def _on_items(self, chunk: Any) -> None:
        await self.catalogue.handle(chunk)

    def _source_check(self) -> SourceCheck:
        topics = (self.names.behaviours, self.names.catalogue)
        everything = [TP(topic, n) for topic in topics for n in range(self._counts[topic])]
        return SourceCheck(self.names.behaviours, everything, self._ports.metrics)

    def _source_offset(self, partition: int) -> int:
        return self.progress.positions.get(TP(self.names.behaviours, partition), 0) - 1

    async def _on_refused(self, refusals: Sequence[Refused]) -> None:
        by_token: list[tuple[Mark, Token]] = []
        for refusal in refusals:
            if isinstance(refusal.by, Marker):
                await self.forgetting.adopt(refusal.job, refusal.by)
            else:
                by_token.append((refusal.job.mark, refusal.by))
        await self.ownership.refused(self.consumer, by_token)

    async def _remove_letters(self, user_ids: Collection[str]) -> None:
        letters = await letters_of(self._settings, user_ids, self._ports.sealer)
        if letters:
            await remove(self._settings, self.outbox, letters)

    def _obey(self, order: Order) -> None:
        log.info("ordered to %s", order.kind)
        for partition in self.windows.partitions.values():
            for subject_id in list(partition.held):
                partition.claim(subject_id, self.progress.generation)
                self.dirty.mark(subject_id, partition.number, None)
