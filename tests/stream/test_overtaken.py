"""A worker slept between encoding an item and announcing it; the item has changed meanwhile."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaProducer

from interest.item import encoded_item_from_bytes
from tests.stream.conftest import Harness, eventually, item
from tests.stream.test_worker import publish


async def announcements(harness: Harness) -> list[Any]:
    """Give the announcements of the one item in their order."""
    return await harness.read("items-encoded")


async def announce(harness: Harness, record: Any) -> None:
    """Send an announcement once more, as a woken worker does."""
    producer = AIOKafkaProducer(bootstrap_servers=harness.settings.kafka_bootstrap, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(
            record.topic, record.value, key=record.key, partition=record.partition,
            headers=list(record.headers),
        )  # fmt: skip
    finally:
        await producer.stop()


async def test_an_old_announcement_that_comes_last_is_left_out_and_followed_by_the_new_one(
    harness: Harness,
) -> None:
    async with harness.worker() as worker:
        await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
        await harness.idle(worker)
        [old] = await announcements(harness)
        await publish(harness, "catalogue", ("mug", item("mug", "A blue mug")))
        await harness.idle(worker)
        await announce(harness, old)

        async def mended() -> bool:
            titles = [
                encoded_item_from_bytes(record.value).item.title
                for record in await announcements(harness)
            ]
            return titles == ["A red mug", "A blue mug", "A red mug", "A blue mug"]

        await eventually(mended)
        await harness.idle(worker)
        held = await worker.ports.items.fetch(["mug"])
        assert held["mug"].item.title == "A blue mug"
        assert not worker.parts.overtaken.pending
