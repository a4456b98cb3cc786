"""Two producers whose partitioners disagree, and what they know to be written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from confluent_kafka import Producer

from tests.chaos.load import Message


class Written(NamedTuple):
    """A record that the broker acknowledged."""

    topic: str
    partition: int
    offset: int
    value: bytes | None


class Producers:
    """Number 0 hashes keys by murmur2, as we do; number 1 by CRC-32, as librdkafka does."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._first: AIOKafkaProducer | None = None
        self._second: Any = None
        self._polling: threading.Thread | None = None
        self._ended = threading.Event()
        self._pending: set[asyncio.Task[Any]] = set()
        #: What was acknowledged; what is missing here may have been written all the same.
        self.written: list[Written] = []
        self.n_unsure = 0

    async def start(self) -> None:
        """Connect both."""
        self._first = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", linger_ms=5, request_timeout_ms=20_000
        )
        await self._first.start()
        self._second = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": 60_000,
                "broker.address.family": "v4",
                "log_level": 0,
            }
        )
        self._polling = threading.Thread(target=self._poll, name="confluent", daemon=True)
        self._polling.start()

    def _poll(self) -> None:
        while not self._ended.is_set():
            self._second.poll(0.05)

    @property
    def n_pending(self) -> int:
        """How many records are not acknowledged yet."""
        return len(self._pending) + len(self._second)

    def send(self, producer: int, topic: str, messages: Sequence[Message]) -> None:
        """Send without waiting."""
        for message in messages:
            if producer == 0:
                task = asyncio.create_task(self._send_first(topic, message))
                self._pending.add(task)
                task.add_done_callback(self._pending.discard)
            else:
                self._second.produce(
                    topic, message.value, message.key, headers=message.headers,
                    on_delivery=lambda error, sent, value=message.value: self._delivered(
                        error, sent, value
                    ),
                )  # fmt: skip

    def _delivered(self, error: Any, sent: Any, value: bytes | None) -> None:
        if error is None:
            self.written.append(Written(sent.topic(), sent.partition(), sent.offset(), value))
        else:
            self.n_unsure += 1

    async def _send_first(self, topic: str, message: Message) -> Written | None:
        assert self._first is not None
        try:
            sent = await self._first.send_and_wait(
                topic, message.value, message.key, headers=message.headers
            )
        except KafkaError:
            self.n_unsure += 1
            return None
        written = Written(topic, sent.partition, sent.offset, message.value)
        self.written.append(written)
        return written

    async def write(self, topic: str, message: Message) -> Written:
        """Send by the first producer until the message is acknowledged."""
        while (written := await self._send_first(topic, message)) is None:
            await asyncio.sleep(0.2)
        return written

    async def flush(self) -> None:
        """Return when nothing is under way any more."""
        while self._pending:
            await asyncio.wait(self._pending)
        while await asyncio.to_thread(self._second.flush, 1.0):
            pass

    async def stop(self) -> None:
        """Disconnect; what is under way is dropped."""
        self._ended.set()
        if self._polling is not None:
            await asyncio.to_thread(self._polling.join)
        if self._second is not None:
            self._second.purge()
        for task in list(self._pending):
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)
        if self._first is not None:
            try:
                await asyncio.wait_for(self._first.stop(), 5.0)
            except (TimeoutError, KafkaError):
                self.n_unsure += 1
