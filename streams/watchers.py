"""What watches a running worker: broker, Redis, lag, and whether there is progress at all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Container, Hashable, Iterable, Mapping
from typing import Final

import psutil
from aiokafka.errors import KafkaError
from faust.types import TP

from interest import metrics as m
from interest.errors import ServiceUnavailable, TopicMismatch
from interest.ports import Metrics, UserVectorStore
from streams.dirty import DirtyUsers
from streams.outbox import Outbox
from streams.progress import Progress
from streams.transport import ChunkConsumer

log = logging.getLogger(__name__)

_EVERY_S: Final = 2.0
_LAG_EVERY_S: Final = 1.0


class Service:
    """Whether a service answers, asked again and again; says so when that changes."""

    def __init__(self, name: str, ping: Callable[[], Awaitable[object]]) -> None:
        self._name = name
        self._ping = ping
        #: Why it does not answer; empty while it does.
        self.away = ""

    async def watch(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(_EVERY_S)

    async def ask(self) -> None:
        """Ask once."""
        try:
            await self._ping()
        except ServiceUnavailable as error:
            if not self.away:
                log.warning("%s; the worker waits for it", error)
            self.away = str(error)
        else:
            if self.away:
                log.info("%s answers again", self._name)
            self.away = ""


class TopicShapes:
    """Notices that topics were changed under a running worker."""

    def __init__(self, outbox: Outbox, expected: Mapping[str, int]) -> None:
        self._outbox = outbox
        self._expected = expected
        self._odd: dict[str, int] = {}

    async def ping(self) -> None:
        """Ask for the topics.

        Raises:
            ServiceUnavailable: no broker answers.
            TopicMismatch: twice in a row a topic had another number of partitions.
        """
        counts = await self._outbox.ping()
        odd = {
            topic: counts[topic]
            for topic, n in self._expected.items()
            # A topic that is not there may be about to be made again.
            if counts.get(topic, n) != n and counts[topic]
        }
        for topic, n in odd.items():
            if self._odd.get(topic) == n:
                raise TopicMismatch(
                    f"topic {topic} has {n} partitions now, {self._expected[topic]} when this "
                    "worker started: it was made again or grown while workers ran"
                )
        self._odd = odd


class RedisLife:
    """Notices that Redis is not the one it was: restarted, emptied, or an older copy.

    Args:
        changed: brings it in line with the windows; called again where it raises
            ServiceUnavailable.
    """

    def __init__(self, vectors: UserVectorStore, changed: Callable[[], Awaitable[None]]) -> None:
        self._vectors = vectors
        self._changed = changed
        self._epoch: str | None = None

    async def ping(self) -> None:
        """Ask for the life of its data.

        Raises:
            ServiceUnavailable: Redis does not answer.
        """
        await self._vectors.ping()
        epoch = await self._vectors.epoch()
        if self._epoch is not None and epoch != self._epoch:
            log.warning("Redis was restarted, emptied or restored; its vectors are checked")
            await self._changed()
        self._epoch = epoch


class Lag:
    """Counts what a worker has yet to read of its source topics."""

    def __init__(
        self, consumer: Callable[[], ChunkConsumer], topics: Iterable[str], progress: Progress
    ) -> None:
        self._consumer = consumer
        self._topics = tuple(topics)
        self._progress = progress

    def partitions(self) -> set[TP]:
        """Give the partitions of the source topics that are assigned."""
        return {tp for tp in self._consumer().assignment() if tp.topic in self._topics}

    async def by_partition(self) -> dict[TP, int]:
        """Count unread records.

        Raises:
            KafkaError: the broker does not answer.
        """
        consumer = self._consumer()
        tps = self.partitions()
        ends = await consumer.highwaters(*tps) if tps else {}
        behind: dict[TP, int] = {}
        for tp in tps:
            read = self._progress.positions.get(tp, self._progress.committed.get(tp))
            if read is None:
                read = await consumer.position(tp) or 0
            behind[tp] = max(0, consumer.known_end(tp, ends.get(tp) or 0) - read)
        return behind

    async def by_topic(self) -> dict[str, int]:
        """Count unread records of each topic.

        Raises:
            KafkaError: the broker does not answer.
        """
        total = dict.fromkeys(self._topics, 0)
        for tp, n in (await self.by_partition()).items():
            total[tp.topic] += n
        return total


async def watch_lag(
    lag: Lag,
    unready: Callable[[], list[str]],
    dirty: DirtyUsers,
    progress: Progress,
    metrics: Metrics,
) -> None:
    """Report lag, backlog and memory until cancelled."""
    process = psutil.Process()
    suppressed = 0
    while True:
        await asyncio.sleep(_LAG_EVERY_S)
        metrics.set(m.MEMORY, process.memory_info().rss)
        metrics.set(m.UNCOMMITTED, progress.uncommitted)
        metrics.set(m.DIRTY, len(dirty))
        metrics.count(m.SUPPRESSED, dirty.n_suppressed - suppressed)
        suppressed = dirty.n_suppressed
        if unready():
            continue
        try:
            for topic, n in (await lag.by_topic()).items():
                metrics.set(m.LAG, n, topic)
        except KafkaError as error:
            log.debug("lag is not known: %s", error)


class Watchdog:
    """Finds a worker that has work and does none of it, though its services answer.

    The lag is the group's at the broker, not this worker's own view: a worker that was assigned
    nothing, or whose fetches stall, sees no lag. A partition of another worker is that worker's
    to watch; one that nobody owns needs a new assignment, and a restart brings it.

    Args:
        expected: every partition of the source topics.
        owned: what the group's members are assigned; None while that is not known.
        services: say why there can be no progress at present; empty texts otherwise.
    """

    def __init__(
        self,
        *,
        limit_s: float,
        consumer: Callable[[], ChunkConsumer],
        expected: Iterable[TP],
        own: Callable[[], set[TP]],
        owned: Callable[[], Awaitable[Container[tuple[str, int]] | None]],
        work: Callable[[], Hashable],
        services: Callable[[], Iterable[str]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s = limit_s
        self._consumer = consumer
        self._expected = frozenset(expected)
        self._own = own
        self._owned = owned
        self._work = work
        self._services = services
        self._monotonic = monotonic
        self._since: dict[TP, tuple[int | None, float]] = {}
        self._worked: tuple[Hashable, float] = (None, monotonic())

    async def run(self) -> None:
        """Watch until something is stuck.

        Raises:
            Stuck: there is work and no progress.
        """
        while True:
            await asyncio.sleep(min(_EVERY_S, self._limit_s / 10))
            try:
                stuck = await self.look()
            except (KafkaError, ServiceUnavailable) as error:
                log.debug("the watchdog does not know the group's lag: %s", error)
                self.reset()
                continue
            if stuck:
                raise Stuck(stuck)

    def reset(self) -> None:
        """Start all times anew."""
        self._since.clear()
        self._worked = (None, self._monotonic())

    async def look(self) -> str:
        """Look once; say what is stuck, nothing where all goes on.

        Raises:
            KafkaError, ServiceUnavailable: the broker did not answer.
        """
        offsets = await self._consumer().source_offsets(self._expected)
        now = self._monotonic()
        if any(self._services()):
            self.reset()
            return ""
        work = self._work()
        if work != self._worked[0]:
            self._worked = (work, now)
        own = self._own()
        for tp, (start, end, committed, _) in offsets.items():
            behind = end > (start if committed is None else max(committed, start))
            known = self._since.get(tp)
            if not behind or known is None or known[0] != committed:
                self._since[tp] = (committed, now)
                continue
            waited_s = now - known[1]
            if tp in own and waited_s > self._limit_s and now - self._worked[1] > self._limit_s:
                return f"{tp.topic} partition {tp.partition} has lag and no progress"
            if tp not in own and waited_s > self._limit_s:
                owned = await self._owned()
                if owned is not None and tuple(tp) not in owned:
                    return f"{tp.topic} partition {tp.partition} has lag and nobody reads it"
        return ""


class Stuck(Exception):
    """Work, and no progress."""
