"""Publishing recorded files to the source topics, as any producer would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

import msgspec

from interest.errors import InvalidEvent
from interest.event import decode_event
from interest.item import decode_item
from interest.metrics import NoMetrics
from interest.settings import Settings
from streams.outbox import Outbox, Record
from streams.topics import TopicNames, ensure_topics

_BATCH: Final = 1_000
#: Paced replays send what is due at least so often, seconds.
_TICK_S: Final = 0.01

#: Multiple of the recorded speed, or as fast as the broker takes it.
Speed = float | Literal["max"]


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record of a file on its way; without a key it will be a dead letter."""

    raw: bytes
    key: str | None
    ts_ms: int | None = None


def outgoing_events(
    raws: Iterable[bytes], on_invalid: Callable[[InvalidEvent], None]
) -> Iterator[Outgoing]:
    """Key events by their user; a broken one is reported and goes out all the same."""
    for raw in raws:
        try:
            event = decode_event(raw)
        except InvalidEvent as error:
            on_invalid(error)
            yield Outgoing(raw, None)
        else:
            yield Outgoing(raw, event.user_id, int(event.ts))


def outgoing_items(
    raws: Iterable[bytes], on_invalid: Callable[[InvalidEvent], None]
) -> Iterator[Outgoing]:
    """Key items by their id; a broken one is reported and goes out all the same."""
    for raw in raws:
        try:
            item = decode_item(raw)
        except InvalidEvent as error:
            on_invalid(error)
            yield Outgoing(raw, None)
        else:
            yield Outgoing(raw, item.item_id)


async def publish(
    settings: Settings,
    kind: Literal["events", "items"],
    records: Iterable[Outgoing],
    *,
    speed: Speed = "max",
    on_sent: Callable[[int], None] = lambda n: None,
) -> int:
    """Publish records in their order; return how many the broker acknowledged.

    Args:
        speed: 1 keeps the recorded times between events, 60 plays an hour in a minute.
        on_sent: told the number of records after each batch that was acknowledged.

    Raises:
        ServiceUnavailable: no broker answers.
        BadInput: a record is larger than the broker takes.
    """
    names = TopicNames.of(settings)
    topic = names.behaviours if kind == "events" else names.catalogue
    await ensure_topics(settings)
    outbox = Outbox(settings, NoMetrics())
    await outbox.start()
    n_sent = 0
    try:
        for batch in _batches(records, speed):
            wait_s = batch.due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await outbox.send_all(
                [
                    Record(topic, record.key.encode() if record.key else None, record.raw)
                    for record in batch.records
                ]
            )
            n_sent += len(batch.records)
            on_sent(len(batch.records))
    finally:
        await outbox.stop()
    return n_sent


class _Batch(msgspec.Struct, frozen=True):
    due_s: float
    records: list[Outgoing]


def _batches(records: Iterable[Outgoing], speed: Speed) -> Iterator[_Batch]:
    began_s = time.monotonic()
    first_ms: int | None = None
    due_s = began_s  # of the batch being filled
    batch: list[Outgoing] = []
    for record in records:
        if speed != "max" and record.ts_ms is not None:
            first_ms = record.ts_ms if first_ms is None else first_ms
            # A log may step back in time; what is overdue goes out with what is due.
            at_s = began_s + (record.ts_ms - first_ms) / 1000 / speed
            if at_s >= due_s + _TICK_S:
                if batch:
                    yield _Batch(due_s, batch)
                    batch = []
                due_s = at_s
        batch.append(record)
        if len(batch) == _BATCH:
            yield _Batch(due_s, batch)
            batch = []
    if batch:
        yield _Batch(due_s, batch)
