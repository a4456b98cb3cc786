"""What we send to Kafka: every record acknowledged by the broker, or sent again.

Faust's own sends are logged when they fail and then taken for done, so nothing that matters
goes through them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from interest import metrics as m
from interest.errors import BadInput, ServiceUnavailable
from interest.ports import Metrics
from interest.settings import Settings
from streams.kafka_security import kafka_options, no_broker
from streams.topics import MAX_RECORD_BYTES

log = logging.getLogger(__name__)

_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 10.0
_PING_S: Final = 5.0
_BATCH_BYTES: Final = 256 * 1024
#: Records that are sent alone: a batch would not take them.
_LARGE_BYTES: Final = 64 * 1024

Headers = tuple[tuple[str, bytes], ...]


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record to send; without a partition its key decides (murmur2), without a key chance.

    Windows and routed events name their partition: there it is the owner that matters.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Headers = ()


def backoff_s(attempt: int) -> float:
    """Give the wait before retry ``attempt`` (from 0): exponential, jittered, bounded."""
    return min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(attempt, 10)) * random.uniform(
        0.5, 1.0
    )


class Outbox:
    """A Kafka producer that gives up on nothing but records that can never be sent.

    Args:
        wrap: what happens to each record before it is sent, see :mod:`streams.letter_sealing`.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        wrap: Callable[[Record], Record] = lambda record: record,
    ) -> None:
        self._wrap = wrap
        self._settings = settings
        self._metrics = metrics
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            ServiceUnavailable: no broker answers, or it refuses us.
            BadInput: the settings of TLS and login contradict each other.
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            # Not idempotent: the receivers are, and brokers without producer ids work too.
            acks="all",
            linger_ms=0,
            max_batch_size=_BATCH_BYTES,
            max_request_size=MAX_RECORD_BYTES + 64 * 1024,
            request_timeout_ms=30_000,
            **kafka_options(self._settings),
        )
        try:
            await producer.start()
        except (KafkaError, OSError, ValueError) as error:
            await producer.stop()
            raise ServiceUnavailable(await no_broker(self._settings, error)) from error
        self._producer = producer

    async def ping(self) -> dict[str, int]:
        """Give the number of partitions of every topic, if a broker answers.

        Raises:
            ServiceUnavailable: none does, in time.
        """
        if self._producer is None:
            raise ServiceUnavailable("not connected to Kafka")
        try:
            async with asyncio.timeout(_PING_S):
                cluster = await self._producer.client.fetch_all_metadata()
        except (KafkaError, OSError, TimeoutError) as error:
            raise ServiceUnavailable(
                f"Kafka at {self._settings.kafka_bootstrap} does not answer"
            ) from error
        return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in cluster.topics()}

    async def stop(self) -> None:
        """Flush what is under way and disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def send_all(self, records: Sequence[Record]) -> None:
        """Return when the broker has acknowledged every record; retry until then.

        Order is kept per partition as long as nothing fails; receivers of all our topics
        compare tokens or ids, so a retry out of order does no harm.

        Raises:
            BadInput: a record is larger than the broker takes.
        """
        pending = [self._wrap(record) for record in records]
        attempt = 0
        while pending:
            failed = await self._attempt(pending)
            if failed:
                self._metrics.count(m.RETRIES, len(failed), "kafka")
                log.warning("sending %d records failed, trying again", len(failed))
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
            pending = failed

    async def _attempt(self, records: Sequence[Record]) -> list[Record]:
        if self._producer is None:
            raise RuntimeError("the outbox was not started")
        failed: list[Record] = []
        sent: list[tuple[list[Record], asyncio.Future[object]]] = []
        for place, group in _by_place(records).items():
            try:
                if place is None:
                    for record in group:
                        future = await self._send(self._producer, record)
                        sent.append(([record], future))
                else:
                    await self._send_batches(self._producer, group, sent)
            except MessageSizeTooLargeError as error:
                raise BadInput(f"a record for {group[0].topic} is too large: {error}") from error
            except KafkaError:
                under_way = {id(record) for batch, _ in sent for record in batch}
                failed += [record for record in group if id(record) not in under_way]
        for batch, future in sent:
            try:
                await future
            except MessageSizeTooLargeError as error:
                raise BadInput(f"a record for {batch[0].topic} is too large: {error}") from error
            except KafkaError:
                failed += batch
        return failed

    async def _send(self, producer: AIOKafkaProducer, record: Record) -> asyncio.Future[object]:
        future: asyncio.Future[object] = await producer.send(
            record.topic,
            key=record.key,
            value=record.value,
            partition=record.partition,
            headers=list(record.headers),
        )
        return future

    async def _send_batches(
        self,
        producer: AIOKafkaProducer,
        records: Sequence[Record],
        sent: list[tuple[list[Record], asyncio.Future[object]]],
    ) -> None:
        """Send records of one partition in batches, each acknowledged as a whole.

        The producer's own way makes a task and a future for each record.
        """
        topic, partition = records[0].topic, records[0].partition
        batch, inside = producer.create_batch(), list[Record]()
        for record in records:
            added = batch.append(
                timestamp=None, key=record.key, value=record.value, headers=list(record.headers)
            )
            if added is None:
                sent.append((inside, await producer.send_batch(batch, topic, partition=partition)))
                batch, inside = producer.create_batch(), []
                batch.append(
                    timestamp=None, key=record.key, value=record.value, headers=list(record.headers)
                )
            inside.append(record)
        sent.append((inside, await producer.send_batch(batch, topic, partition=partition)))


def _by_place(records: Sequence[Record]) -> dict[tuple[str, int] | None, list[Record]]:
    """Give the records of each topic and partition; under None those that are sent alone."""
    grouped: dict[tuple[str, int] | None, list[Record]] = {}
    for record in records:
        alone = record.partition is None or len(record.value or b"") > _LARGE_BYTES
        place = None if alone else (record.topic, record.partition)
        grouped.setdefault(place, []).append(record)  # type: ignore[arg-type]
    return grouped
