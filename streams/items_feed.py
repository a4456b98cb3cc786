"""The ``items-encoded`` feed: every worker and API reads it in full, outside the group.

It tells which items are known, keeps the cache fresh, fills an index in process where there is
no shared one, and makes the users who hold a changed item dirty.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

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


def item_key(model_id: str, item_id: str) -> bytes:
    """Give the record key of an item of one model; model ids hold no slash."""
    return f"{model_id}/{item_id}".encode()


class KnownItem(NamedTuple):
    """What is remembered of an item: a digest of its record, and when it was announced (ms)."""

    digest: bytes
    announced_ms: int


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
        latest = {
            record.key[len(self._prefix) :].decode(): record
            for record in records
            if record.key is not None and record.key.startswith(self._prefix)
        }
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
                continue
            try:
                changed.append(encoded_item_from_bytes(record.value))
            except CorruptRecord as error:
                log.error("an announced item is skipped: %s", error)
                continue
            news[item_id] = KnownItem(digest, int(record.timestamp))
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
        self.on_applied(list(news), removed)
        if self.caught_up.is_set() and (changed or removed):
            self.on_changed([*(encoded.item.item_id for encoded in changed), *removed])
