"""What the ``catalogue`` topic holds, and how far the workers are with it.

The topic itself is the memory of a bulk load: what is on it is compared with the file, so that a
load that was interrupted, on whatever machine, goes on with what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from interest.errors import ServiceUnavailable
from interest.settings import Settings
from streams.kafka_security import kafka_options, no_broker
from streams.publish import Outgoing
from streams.scan import open_scan
from streams.topics import TopicNames, ensure_topics

_POLL_S: Final = 0.5
_FETCH_MS: Final = 100


async def published_items(
    settings: Settings, on_read: Callable[[int], None] = lambda n: None
) -> dict[str, bytes]:
    """Read the topic once: item id → digest of the newest message; removed items are left out.

    Creates the topics that are missing. Keeps an id and 16 bytes of each item in memory.

    Args:
        on_read: told how many messages each fetch brought.

    Raises:
        ServiceUnavailable: no broker answers, or it went away.
    """
    topic = TopicNames.of(settings).catalogue
    await ensure_topics(settings)
    held: dict[str, bytes] = {}
    async with open_scan(settings) as scan:
        for partition in await scan.partitions(topic):
            bounds = await scan.bounds(topic, partition)
            async for records in scan.records(topic, partition, bounds):
                for record in records:
                    # What has no readable key is a dead letter to the workers, too.
                    item_id = (record.key or b"").decode(errors="replace")
                    if record.value is None:
                        held.pop(item_id, None)
                    else:
                        held[item_id] = _digest(record.value)
                on_read(len(records))
    return held


def only_changed(
    records: Iterable[Outgoing], held: dict[str, bytes], on_unchanged: Callable[[], None]
) -> Iterator[Outgoing]:
    """Pass on the items whose message differs from the newest of the topic; keeps ``held`` so."""
    for record in records:
        digest = _digest(record.raw)
        if record.key is not None and held.get(record.key) == digest:
            on_unchanged()
            continue
        if record.key is not None:
            held[record.key] = digest
        yield record


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=16).digest()


async def follow_encoding(settings: Settings, on_left: Callable[[int], None]) -> None:
    """Return when the workers have stored and announced every item that is on the topic now.

    Args:
        on_left: told again and again how many messages are not committed yet. A commit follows
            at the next checkpoint, so it goes down in steps.

    Raises:
        ServiceUnavailable: the broker does not answer, or went away.
    """
    topic = TopicNames.of(settings).catalogue
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=settings.group_id,  # to read what it committed; without a topic it does not join
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        **kafka_options(settings),
    )
    try:
        await consumer.start()
        async with open_scan(settings) as scan:
            parts = [TopicPartition(topic, n) for n in await scan.partitions(topic)]
        consumer.assign(parts)
        ends = await _ends(consumer, parts)
        starts = await consumer.beginning_offsets(parts)
        while True:
            left = 0
            for tp in parts:
                done = max(await consumer.committed(tp) or 0, starts[tp])
                left += max(0, ends[tp] - done)
            on_left(left)
            if not left:
                return
            await asyncio.sleep(_POLL_S)
    except (KafkaError, OSError) as error:
        raise ServiceUnavailable(await no_broker(settings, error)) from error
    finally:
        await consumer.stop()


async def _ends(
    consumer: AIOKafkaConsumer, parts: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """Give the offsets behind the last records.

    There are brokers that name the first offset of the last batch; so what follows is read.
    """
    for tp, end in (await consumer.end_offsets(parts)).items():
        consumer.seek(tp, end)
    ends: dict[TopicPartition, int] = {}
    while len(ends) < len(parts):
        await consumer.getmany(timeout_ms=_FETCH_MS)
        for tp in parts:
            position = await consumer.position(tp)
            if position == consumer.highwater(tp):
                ends[tp] = position
    return ends
