"""The ``items-encoded`` feed: every worker and API reads it in full, outside the group.

It tells which items are known, keeps the cache fresh, fills an index in process where there is
no shared one, and makes the users who hold a changed item dirty.

A worker that slept between encoding an item and announcing it announces an old version last. So an
announcement says which catalogue record it is of, and one of an older record than is known is left
out; :mod:`streams.overtaken` sees to it that it does not stay the last.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from interest import metrics as m
from interest.errors import CorruptRecord, ServiceUnavailable
from interest.item import EncodedItem, encoded_item_from_bytes
from interest.ports import ItemLookup, ItemStore, Metrics
from interest.settings import Settings
from streams.kafka_security import kafka_options
from streams.outbox import backoff_s

log = logging.getLogger(__name__)

_POLL_MS: Final = 500
_SOURCE_HEADER: Final = "source"
#: Partition, offset and arrival (ms) of the catalogue record.
_SOURCE: Final = struct.Struct("<iqq")


def item_key(model_id: str, item_id: str) -> bytes:
    """Give the record key of an item of one model; model ids hold no slash."""
    return f"{model_id}/{item_id}".encode()


class Source(msgspec.Struct, frozen=True, gc=False):
    """The catalogue record that an announcement is of; ``timestamp_ms`` is its arrival."""

    partition: int
    offset: int
    timestamp_ms: int

    def older_than(self, other: Source) -> bool:
        """Tell whether the other record is known to be the later one.

        Offsets begin anew where the topic was made again, and clocks of producers differ: one
        alone proves nothing, and nothing does across partitions.
        """
        return (
            self.partition == other.partition
            and self.offset < other.offset
            and self.timestamp_ms <= other.timestamp_ms
        )

    @classmethod
    def of(cls, record: Any) -> Source:
        """Take the place and arrival of a catalogue record (aiokafka's ``ConsumerRecord``)."""
        return cls(record.partition, record.offset, int(record.timestamp))

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Give the headers of an announcement."""
        packed = _SOURCE.pack(self.partition, self.offset, self.timestamp_ms)
        return ((_SOURCE_HEADER, packed),)

    @classmethod
    def read(cls, headers: Sequence[tuple[str, bytes]]) -> Source | None:
        """Read the headers of an announcement; None where it does not say."""
        packed = dict(headers).get(_SOURCE_HEADER)
        if packed is None or len(packed) != _SOURCE.size:
            return None
        return cls(*_SOURCE.unpack(packed))


class KnownItem(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of an item: of which record it is, and when it was announced (ms)."""

    digest: bytes
    announced_ms: int
    source: Source | None = None


class ItemsFeed:
    """Follows one model's items.

    ``on_changed`` is called with the ids of items that were added, changed or removed after the
    feed had caught up at start; ``on_applied`` always, with those that were added or changed, and
    those that were removed.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        model_id: str,
        store: ItemStore,
        lookup: ItemLookup | None,
        metrics: Metrics,
        on_changed: Callable[[Sequence[str]], None] = lambda item_ids: None,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._prefix = f"{model_id}/".encode()
        self._store = store
        self._lookup = lookup
        self._metrics = metrics
        self.on_changed = on_changed
        self.on_applied: Callable[[Sequence[str], Sequence[str]], None] = lambda put, gone: None
        self.known: dict[str, KnownItem] = {}
        #: Items whose last announcement is an old one, and the record that should be announced.
        self.overtaken: dict[str, Source] = {}
        self.on_overtaken = asyncio.Event()
        self._removed: dict[str, Source] = {}
        self.caught_up = asyncio.Event()
        self._positions: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None

    async def behind(self) -> int:
        """Count the announcements that are not applied here yet.

        Raises:
            KafkaError: the broker does not answer.
        """
        consumer = self._consumer
        if consumer is None:
            return 1  # not connected: what is there is not known
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.beginning_offsets(partitions)
        # A fetch tells the true end where a broker tells the first offset of its last batch.
        return sum(
            max(0, max(ends[tp], consumer.highwater(tp) or 0) - self._positions.get(tp, starts[tp]))
            for tp in partitions
        )

    async def run(self) -> None:
        """Follow the feed until cancelled; a broker that is away is waited for."""
        attempt = 0
        while True:
            read = dict(self._positions)
            try:
                await self._follow()
            except (KafkaError, OSError, ServiceUnavailable) as error:
                attempt = 0 if self._positions != read else attempt + 1
                self._metrics.count(m.RETRIES, 1, "items-feed")
                log.warning("the items feed is interrupted, trying again: %s", error)
                await asyncio.sleep(backoff_s(attempt))

    async def _follow(self) -> None:
        # Without a group every reader is assigned all partitions.
        consumer = AIOKafkaConsumer(
            self._topic,
            group_id=None,
            bootstrap_servers=self._settings.kafka_bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self._settings.fetch_max_wait_ms,
            metadata_max_age_ms=5_000,
            **kafka_options(self._settings),
        )
        try:
            await consumer.start()
            partitions = consumer.assignment()
            for tp in partitions:
                if tp in self._positions:
                    consumer.seek(tp, self._positions[tp])
            ends = await consumer.end_offsets(partitions)
            starts = await consumer.beginning_offsets(partitions)
            waiting = {tp for tp in partitions if ends[tp] > starts[tp]}
            self._consumer = consumer
            while True:
                waiting = {tp for tp in waiting if await consumer.position(tp) < ends[tp]}
                if not waiting:
                    self.caught_up.set()
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
                for tp, records in fetched.items():
                    await self._apply(records)
                    self._positions[tp] = records[-1].offset + 1
        finally:
            self._consumer = None
            await consumer.stop()

    async def _apply(self, records: Sequence[Any]) -> None:
        # The last record of an item within a batch stands for all before it.
        latest: dict[str, Any] = {}
        sources: dict[str, Source] = {}
        for record in records:
            if record.key is not None and record.key.startswith(self._prefix):
                item_id = record.key[len(self._prefix) :].decode()
                source = Source.read(record.headers)
                if not self._is_overtaken(item_id, source, sources.get(item_id)):
                    latest[item_id] = record
                    if source is not None:
                        sources[item_id] = source
        changed: list[EncodedItem] = []
        removed: list[str] = []
        news: dict[str, KnownItem] = {}
        for item_id, record in latest.items():
            held = self.known.get(item_id)
            if record.value is None:
                if held is not None:
                    removed.append(item_id)
                continue
            digest = hashlib.blake2b(record.value, digest_size=8).digest()
            if held is not None and held.digest == digest:
                source = sources.get(item_id)
                self.known[item_id] = msgspec.structs.replace(held, source=source or held.source)
                continue
            try:
                changed.append(encoded_item_from_bytes(record.value))
            except CorruptRecord as error:
                log.error("an announced item is skipped: %s", error)
                continue
            news[item_id] = KnownItem(digest, int(record.timestamp), sources.get(item_id))
        if not self._store.shared:
            if changed:
                await self._store.upsert(changed)
            if removed:
                await self._store.remove(removed)
        if self._lookup is not None:
            self._lookup.put(changed)
            self._lookup.drop(removed)
        # Only now: after a failure above the records are read again, as news.
        self.known.update(news)
        for item_id in removed:
            del self.known[item_id]
        for item_id, source in sources.items():
            if latest[item_id].value is None:
                self._removed[item_id] = source
            else:
                self._removed.pop(item_id, None)
        self.on_applied(list(news), removed)
        if self.caught_up.is_set() and (changed or removed):
            self.on_changed([*(encoded.item.item_id for encoded in changed), *removed])

    def _is_overtaken(self, item_id: str, source: Source | None, before: Source | None) -> bool:
        """Tell whether a later version is known, and note what ought to be announced again.

        Args:
            before: of the item's last announcement in the same fetch.
        """
        held = self.known.get(item_id)
        latest = before or (self._removed.get(item_id) if held is None else held.source)
        if source is not None and latest is not None and source.older_than(latest):
            log.warning("an old version of an item was announced after a newer one")
            self.overtaken[item_id] = latest
            self.on_overtaken.set()
            return True
        self.overtaken.pop(item_id, None)
        return False
