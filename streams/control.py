"""The ``control`` topic: orders that every worker obeys, read outside the group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Literal

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from interest import metrics as m
from interest.metrics import NoMetrics
from interest.ports import Metrics
from interest.settings import Settings
from streams.kafka_security import kafka_options
from streams.outbox import Outbox, Record, backoff_s
from streams.topics import TopicNames, ensure_topics

log = logging.getLogger(__name__)

_POLL_MS: Final = 500


class Order(msgspec.Struct, frozen=True):
    """One message of the topic, JSON."""

    kind: Literal["rebuild"]


_decoder = msgspec.json.Decoder(Order)


class ControlFeed:
    """Follows the topic from its end at start: an order is for the workers that run."""

    def __init__(
        self, settings: Settings, on_order: Callable[[Order], None], metrics: Metrics
    ) -> None:
        self._settings = settings
        self._topic = TopicNames.of(settings).control
        self._on_order = on_order
        self._metrics = metrics
        self._position: int | None = None

    async def run(self) -> None:
        """Obey until cancelled; a broker that is away is waited for."""
        attempt = 0
        while True:
            before = self._position
            try:
                await self._follow()
            except (KafkaError, OSError) as error:
                attempt = 0 if self._position != before else attempt
                self._metrics.count(m.RETRIES, 1, "control")
                log.warning("the control topic is interrupted, trying again: %s", error)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(
            self._topic,
            bootstrap_servers=self._settings.kafka_bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            fetch_max_wait_ms=self._settings.fetch_max_wait_ms,
            metadata_max_age_ms=5_000,
            **kafka_options(self._settings),
        )
        try:
            await consumer.start()
            for tp in consumer.assignment():
                if self._position is None:
                    # Known before the first order, so that none is missed while this is cut off.
                    self._position = await consumer.position(tp)
                else:
                    consumer.seek(tp, self._position)
            while True:
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
                for records in fetched.values():
                    for record in records:
                        self._obey(record.value)
                        self._position = record.offset + 1
        finally:
            await consumer.stop()

    def _obey(self, raw: bytes | None) -> None:
        try:
            order = _decoder.decode(raw or b"")
        except msgspec.DecodeError as error:
            log.error("an order on %s is not understood: %s", self._topic, error)
        else:
            self._on_order(order)


async def give_order(settings: Settings, order: Order) -> None:
    """Publish an order to all workers.

    Raises:
        ServiceUnavailable: no broker answers.
    """
    await ensure_topics(settings)
    outbox = Outbox(settings, NoMetrics())
    await outbox.start()
    try:
        topic = TopicNames.of(settings).control
        await outbox.send_all([Record(topic, None, msgspec.json.encode(order), partition=0)])
    finally:
        await outbox.stop()


async def request_forget(settings: Settings, user_id: str) -> None:
    """Ask the workers to forget a person.

    Raises:
        ServiceUnavailable: no broker answers.
    """
    await ensure_topics(settings)
    outbox = Outbox(settings, NoMetrics())
    await outbox.start()
    try:
        topic = TopicNames.of(settings).forget
        value = msgspec.json.encode({"user_id": user_id})
        await outbox.send_all([Record(topic, user_id.encode(), value)])
    finally:
        await outbox.stop()
