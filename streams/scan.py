"""Reading a topic once, from its beginning to the end it has now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from interest.errors import BadInput, ServiceUnavailable
from interest.settings import Settings
from streams import fetched, lenient_records
from streams.kafka_security import kafka_options, no_broker
from streams.topics import MAX_RECORD_BYTES, admin_client, partition_counts

_POLL_MS: Final = 1_000


class TopicScan:
    """A reader outside any group; one partition at a time, so memory is that of some fetches."""

    def __init__(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient) -> None:
        self._consumer = consumer
        self._admin = admin

    async def partitions(self, topic: str) -> list[int]:
        """List the partitions of a topic.

        Raises:
            BadInput: there is no such topic. It is not created by being asked for.
        """
        # Not of the consumer: that learns the partitions of topics it follows alone.
        count = (await partition_counts(self._admin)).get(topic)
        if not count:
            raise BadInput(f"there is no topic {topic}; `interest topics create` makes it")
        return list(range(count))

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Give the first offset that is there, and the one behind the last."""
        tp = TopicPartition(topic, partition)
        starts = await self._consumer.beginning_offsets([tp])
        ends = await self._consumer.end_offsets([tp])
        return starts[tp], ends[tp]

    async def records(
        self, topic: str, partition: int, bounds: tuple[int, int]
    ) -> AsyncIterator[Sequence[Any]]:
        """Yield the records between two offsets, a fetch at a time, in order.

        What a fetch brings beyond the end is yielded, too: there are brokers whose end is the
        first offset of the last batch.
        """
        tp = TopicPartition(topic, partition)
        first, end = bounds
        if first >= end:
            return
        self._consumer.assign([tp])
        self._consumer.seek(tp, first)
        while await self._consumer.position(tp) < end:
            fetched = await self._consumer.getmany(tp, timeout_ms=_POLL_MS)
            if fetched.get(tp):
                yield fetched[tp]


@asynccontextmanager
async def open_scan(settings: Settings) -> AsyncIterator[TopicScan]:
    """Connect for scanning.

    Raises:
        ServiceUnavailable: no broker answers, or it went away in the middle.
    """
    lenient_records.install()
    fetched.install()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        max_partition_fetch_bytes=2 * MAX_RECORD_BYTES,
        **kafka_options(settings),
    )
    try:
        await consumer.start()
    except (KafkaError, OSError) as error:
        await consumer.stop()
        raise ServiceUnavailable(await no_broker(settings, error)) from error
    try:
        async with admin_client(settings) as admin:
            yield TopicScan(consumer, admin)
    except KafkaError as error:
        raise ServiceUnavailable(
            f"Kafka at {settings.kafka_bootstrap} went away while a topic was read ({error!r}); "
            "run the command again"
        ) from error
    finally:
        await consumer.stop()
