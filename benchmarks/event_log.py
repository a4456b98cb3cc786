"""The log that every stream benchmark reads: made up, the same each time, in order of time.

Windows are put into the changelog beforehand, full, so that what is measured is the steady state
of a shop and not its first day: folding into a full window is the dearest fold there is.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Producer

from interest.bundle import ModelBundle
from interest.event import Event, EventTimeMs, EventType
from interest.item import EncodedItem, Item, encoded_item_to_bytes, unit
from interest.partition import partition_of
from interest.settings import Settings
from interest.window import BehaviourWindow, window_to_bytes
from streams.items_feed import item_key
from streams.topics import TopicNames, ensure_topics

N_USERS: Final = 10_000
N_ITEMS: Final = 1_000
T0_MS: Final = 1_700_000_000_000
_TYPES: Final = ("view", "click", "cart", "purchase")
_FLUSH_S: Final = 60.0


class Message(NamedTuple):
    """One record on its way to the broker."""

    topic: str
    partition: int
    key: bytes
    value: bytes


def user(number: int) -> str:
    """Name a user."""
    return f"user-{number:06d}"


def by_zipf(n: int, n_users: int, seed: int) -> list[int]:
    """Draw the users of ``n`` events by Zipf's law with exponent 1: user r has a share of 1/r."""
    shares = np.cumsum(1 / np.arange(1, n_users + 1))
    drawn = np.random.default_rng(seed).random(n) * shares[-1]
    return np.searchsorted(shares, drawn).tolist()  # type: ignore[no-any-return,unused-ignore]


def events(n: int, first: int = 0, users: Sequence[int] = ()) -> Iterator[tuple[str, bytes]]:
    """Give (user id, JSON of about 180 bytes); users are drawn evenly unless given."""
    draw = random.Random(first)
    for i in range(first, first + n):
        user_id = user(users[i - first] if users else draw.randrange(N_USERS))
        yield (
            user_id,
            msgspec.json.encode(
                {
                    "event_id": f"00000000-0000-{i:012d}",
                    "user_id": user_id,
                    "type": _TYPES[i % len(_TYPES)],
                    "ts": T0_MS + i,
                    "item_id": f"item-{draw.randrange(N_ITEMS):05d}",
                    "session_id": f"s-{user_id}",
                    "platform": "web",
                    "domain": "shop",
                }
            ),
        )


def full_windows(n_events: int, n_users: int = N_USERS) -> Iterator[BehaviourWindow]:
    """Give every user's window, full, with events that lie before those of the log."""
    draw = random.Random(-1)
    for number in range(n_users):
        user_id = user(number)
        yield BehaviourWindow(
            subject_id=user_id,
            events=tuple(
                Event(
                    event_id=f"10000000-{number:06d}-{i:04d}",
                    user_id=user_id,
                    type=EventType.VIEW,
                    ts=EventTimeMs(T0_MS - 1000 * (n_events - i)),
                    item_id=f"item-{draw.randrange(N_ITEMS):05d}",
                    session_id=f"s-{user_id}",
                    platform="web",
                    domain="shop",
                )
                for i in range(n_events)
            ),
            revision=n_events,
        )


def known_items(dim: int) -> Iterator[EncodedItem]:
    """Give the items of the log, with vectors that mean nothing."""
    vectors = unit(np.random.default_rng(0).normal(size=(N_ITEMS, dim)))
    for i in range(N_ITEMS):
        item_id = f"item-{i:05d}"
        yield EncodedItem(item=Item(item_id=item_id, title=item_id), vector=vectors[i])


async def preload(
    settings: Settings,
    bundle: ModelBundle,
    n_events: int,
    *,
    n_windows: int = N_USERS,
    users: Sequence[int] = (),
) -> None:
    """Create the topics, and put the log, the items and full windows into them."""
    await ensure_topics(settings)
    names = TopicNames.of(settings)
    n, model_id = settings.partitions, bundle.model_id
    send(
        settings.kafka_bootstrap,
        itertools.chain(
            (
                Message(names.items_encoded, 0, key, encoded_item_to_bytes(encoded))
                for encoded in known_items(bundle.dim)
                for key in [item_key(model_id, encoded.item.item_id)]
            ),
            (
                Message(names.windows, partition_of(w.subject_id, n), w.subject_id.encode(), raw)
                for w in full_windows(bundle.config.window.max_events, n_windows)
                for raw in [window_to_bytes(w, 0)]
            ),
            log(settings, n_events, users),
        ),
    )


def log(settings: Settings, n_events: int, users: Sequence[int] = ()) -> Iterator[Message]:
    """Give the log itself, each event on the partition of its user."""
    topic = TopicNames.of(settings).behaviours

    @functools.cache
    def home(user_id: str) -> int:
        return partition_of(user_id, settings.partitions)

    for user_id, raw in events(n_events, users=users):
        yield Message(topic, home(user_id), user_id.encode(), raw)


def send(bootstrap: str, messages: Iterable[Message]) -> None:
    """Send with librdkafka, as fast as the broker takes it; return when all is acknowledged.

    Raises:
        RuntimeError: the broker refused a record, or did not answer.
    """
    failed: list[Any] = []

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "acks": "all"})
    for message in messages:
        while True:
            try:
                producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    partition=message.partition,
                    on_delivery=delivered,
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(_FLUSH_S) or failed:
        raise RuntimeError(f"the log could not be sent: {failed[:1] or 'no answer'}")
