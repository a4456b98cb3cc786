"""A worker in a process of its own, a producer, and a reader of Redis that looks all the time."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Producer

from benchmarks.event_log import N_ITEMS, N_USERS, T0_MS, Message, full_windows, send
from benchmarks.servers import Servers
from benchmarks.worker_process import metric, ready, worker_process
from interest import metrics as m
from interest.item import Item, encode_item
from interest.partition import partition_of
from interest.settings import Settings
from interest.window import WindowLimits
from interest.window_bytes import window_to_bytes
from interest_cli.convert import SAMPLE_FOLDER
from interest_cli.files import RecordFile, read_items
from interest_cli.wiring import user_vectors
from streams.publish import Outgoing, publish
from streams.topics import TopicNames, ensure_topics
from tests.servers import free_port

_DRAIN_S: Final = 120.0
_TICK_S: Final = 0.001
#: Events that are looked for, a second: reading more would load the machine that is measured.
_SAMPLED_PER_S: Final = 100.0


class _Sent(msgspec.Struct, frozen=True):
    user_id: str
    ts_ms: int
    at: float


class Fresh(NamedTuple):
    """One event: seconds after the run began that it was sent, and ms until it was readable."""

    sent_s: float
    ms: float


class Flood(NamedTuple):
    """What a worker drained: many events of one user may share a vector."""

    events_per_s: float
    vectors_per_s: float


class Rig:
    """Sends events, and says when their users' vectors show them.

    Args:
        n_vectors: counts the vectors that were made; None where each event makes one.
    """

    def __init__(
        self, settings: Settings, model_id: str, n_vectors: Callable[[], float] | None = None
    ) -> None:
        self.settings = settings
        self._n_vectors = n_vectors
        self._vectors = user_vectors(settings)
        self._model_id = model_id
        self._topic = TopicNames.of(settings).behaviours
        self._producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "linger.ms": 0})
        self._home = {
            user: partition_of(user, settings.partitions) for user in map(_user, range(N_USERS))
        }
        self._draw = random.Random(7)
        self._number = itertools.count(1)

    def _send(self) -> _Sent:
        number, user_id = next(self._number), _user(self._draw.randrange(N_USERS))
        sent = _Sent(user_id, T0_MS + number, time.perf_counter())
        event = {
            "event_id": f"20000000-0000-{number:012d}", "user_id": user_id, "type": "click",
            "ts": sent.ts_ms, "item_id": f"item-{self._draw.randrange(N_ITEMS):05d}",
            "session_id": f"s-{user_id}", "platform": "web", "domain": "shop",
        }  # fmt: skip
        self._producer.produce(
            self._topic, msgspec.json.encode(event), user_id, self._home[user_id]
        )
        self._producer.poll(0)
        return sent

    async def flood(self, n: int) -> Flood:
        """Send ``n`` events as fast as possible; wait until every vector shows them."""
        before = await self.n_vectors()
        began = time.perf_counter()
        newest: dict[str, _Sent] = {}
        for i in range(n):
            sent = self._send()
            newest[sent.user_id] = sent
            if i % 500 == 0:
                await asyncio.sleep(0)
        waiting = list(newest.values())
        # The last ones first, and few at a time: reading takes part of the machine.
        while waiting:
            part = waiting[-200:]
            shown = set(await self._shown(part))
            waiting = [*waiting[:-200], *(sent for sent in part if sent not in shown)]
            if not shown:
                await asyncio.sleep(0.02)
            if time.perf_counter() - began > _DRAIN_S:
                raise TimeoutError(f"{len(waiting)} users wait after {_DRAIN_S:g} s")
        seconds = time.perf_counter() - began
        n_vectors = n if self._n_vectors is None else await self.n_vectors() - before
        return Flood(n / seconds, n_vectors / seconds)

    async def n_vectors(self) -> float:
        """Count the vectors made so far; 0 where nobody counts."""
        return 0.0 if self._n_vectors is None else await asyncio.to_thread(self._n_vectors)

    async def unseen(self, rate: float, seconds: float) -> None:
        """Send ``rate`` events a second, and look at none of them."""
        await self._pace(rate, seconds, None)

    async def paced(self, rate: float, seconds: float) -> list[Fresh]:
        """Send ``rate`` events a second; give the freshness of a sample of them."""
        waiting: list[_Sent] = []
        fresh: list[Fresh] = []
        began = time.perf_counter()
        sending = asyncio.create_task(self._pace(rate, seconds, waiting))
        deadline = time.perf_counter() + seconds + _DRAIN_S
        while (waiting or not sending.done()) and time.perf_counter() < deadline:
            asked = list(waiting)
            shown = await self._shown(asked)
            now = time.perf_counter()
            for sent in shown:
                waiting.remove(sent)
                fresh.append(Fresh(sent.at - began, (now - sent.at) * 1e3))
            await asyncio.sleep(_TICK_S / 2)
        await sending
        if waiting:
            raise TimeoutError(f"{len(waiting)} events are not readable after {_DRAIN_S:g} s")
        return fresh

    async def _pace(self, rate: float, seconds: float, waiting: list[_Sent] | None) -> None:
        every = max(1, round(rate / _SAMPLED_PER_S))
        began, n = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            while n < passed * rate:
                sent = self._send()
                if waiting is not None and n % every == 0:
                    waiting.append(sent)
                n += 1
            await asyncio.sleep(_TICK_S)

    async def _shown(self, asked: list[_Sent]) -> list[_Sent]:
        states = await self._vectors.fetch([sent.user_id for sent in asked], self._model_id)
        return [
            sent
            for sent, state in zip(asked, states, strict=True)
            if state is not None and state.vector.event_time_ms >= sent.ts_ms
        ]

    async def close(self) -> None:
        """Disconnect."""
        self._producer.flush(5)
        await self._vectors.close()


@asynccontextmanager
async def open_rig(servers: Servers) -> AsyncIterator[Rig]:
    """Start a worker whose users have full windows and whose items are encoded.

    Raises:
        RuntimeError: the worker ended; its log is part of the text.
    """
    settings = rig_settings(servers)
    await ensure_topics(settings)
    send(settings.kafka_bootstrap, _windows(settings))
    await publish(settings, "items", items())
    with worker_process(settings) as process:
        await ready(settings, process)
        vectors = user_vectors(settings)
        live = await vectors.live_model()
        await vectors.close()
        assert live is not None
        rig = Rig(settings, live.model_id, partial(metric, settings, m.VECTORS))
        try:
            yield rig
        finally:
            await rig.close()


@asynccontextmanager
async def open_peer(servers: Servers) -> AsyncIterator[Rig]:
    """Start a plain Faust agent that calls the model per event, see `faust_per_event`.

    Raises:
        RuntimeError: it ended, or is not ready in time; its log is part of the text.
    """
    settings = rig_settings(servers)
    await ensure_topics(settings)
    with worker_process(settings, ["-m", "benchmarks.faust_per_event"]) as process:
        vectors = user_vectors(settings)
        deadline = time.monotonic() + _DRAIN_S
        while (live := await vectors.live_model()) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the Faust agent is not ready")
            await asyncio.sleep(0.2)
        await vectors.close()
        rig = Rig(settings, live.model_id)
        try:
            yield rig
        finally:
            await rig.close()


def rig_settings(servers: Servers) -> Settings:
    """Give the settings of an installation of its own."""
    prefix = f"fresh-{uuid.uuid4().hex[:8]}-"
    return Settings(
        kafka_bootstrap=servers.kafka_bootstrap,
        redis_url=servers.redis_url,
        redis_prefix=f"{prefix}:",
        topic_prefix=prefix,
        group_id=f"{prefix}workers",
        partitions=4,
        session_timeout_s=6.0,
        # As the demo sets it: the embedded broker looks for news twice in that time.
        fetch_max_wait_ms=20 if servers.broker == "embedded" else 500,
        worker_port=free_port(),
    )


def _user(number: int) -> str:
    return f"user-{number:06d}"


def _windows(settings: Settings) -> Iterator[Message]:
    topic = TopicNames.of(settings).windows
    for window in full_windows(WindowLimits().max_events):
        home = partition_of(window.subject_id, settings.partitions)
        yield Message(topic, home, window.subject_id.encode(), window_to_bytes(window, 0))


def items() -> Iterable[Outgoing]:
    """Give the titles of the sample under the ids of the log."""
    file = RecordFile(SAMPLE_FOLDER / "items.jsonl.gz", Item, print)
    sample = read_items(file, on_invalid=print)
    for i, item in enumerate(itertools.islice(sample, N_ITEMS)):
        named = msgspec.structs.replace(item, item_id=f"item-{i:05d}")
        yield Outgoing(encode_item(named), named.item_id)
