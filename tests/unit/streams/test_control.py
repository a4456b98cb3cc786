"""Orders that are given while a worker is cut off from the broker."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from interest.metrics import NoMetrics
from interest.settings import Settings
from streams.control import ControlFeed, Order

CONTROL = TopicPartition("control", 0)


class Ordered(NamedTuple):
    offset: int
    value: bytes


class Broker:
    """A topic, and consumers of it that begin at its end; the first is cut off."""

    def __init__(self) -> None:
        self.topic = [b"{}"] * 3
        self.connections = 0

    def consumer(self, *args: Any, **kwargs: Any) -> Consumer:
        self.connections += 1
        return Consumer(self, cut_off=self.connections == 1)


class Consumer:
    def __init__(self, broker: Broker, *, cut_off: bool) -> None:
        self._broker = broker
        self._cut_off = cut_off
        self._next = 0

    async def start(self) -> None:
        self._next = len(self._broker.topic)

    async def stop(self) -> None: ...

    def assignment(self) -> set[TopicPartition]:
        return {CONTROL}

    async def position(self, tp: TopicPartition) -> int:
        return self._next

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._next = offset

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Ordered]]:
        await asyncio.sleep(0)
        if self._cut_off:
            self._broker.topic.append(b'{"kind": "rebuild"}')
            raise KafkaConnectionError
        records = [Ordered(i, raw) for i, raw in enumerate(self._broker.topic)][self._next :]
        self._next = len(self._broker.topic)
        return {CONTROL: records} if records else {}


async def test_an_order_given_while_the_broker_is_away_is_obeyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, obeyed, told = Broker(), list[Order](), asyncio.Event()
    monkeypatch.setattr("streams.control.AIOKafkaConsumer", broker.consumer)
    monkeypatch.setattr("streams.control.backoff_s", lambda attempt: 0)

    def on_order(order: Order) -> None:
        obeyed.append(order)
        told.set()

    feed = ControlFeed(Settings(), on_order, NoMetrics())
    running = asyncio.create_task(feed.run())
    await asyncio.wait_for(told.wait(), 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert obeyed == [Order("rebuild")]
    assert broker.connections == 2
