"""The worker: everything between the Kafka topics and the readable vectors, as one service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiokafka.errors import KafkaError

from interest.bundle import LiveModel
from interest.errors import BadInput, InterestError, ServiceUnavailable, TopicMismatch
from interest.pseudonyms import check_pseudonyms
from streams.dirty import DirtyUsers
from streams.items_feed import ItemsFeed
from streams.letter_sealing import letters_sealed
from streams.outbox import Outbox
from streams.partitions import Partition
from streams.progress import Progress
from streams.topics import TopicNames, ensure_topics
from streams.watchers import watch_lag
from streams.windows import WindowStore
from streams.worker_parts import WorkerParts, WorkerPorts

log = logging.getLogger(__name__)

_FINAL_CHECKPOINT_S: Final = 12.0
_STOP_S: Final = 6.0
_REVOKED_CHECKPOINT_S: Final = 3.0
_DAY_MS: Final = 86_400_000


class WorkerFailed(InterestError):
    """The worker cannot go on; its supervisor should start it again."""

    exit_code = 5


def check_idle_days(idle_days: float, window_days: float) -> None:
    """Refuse to evict users whose events still count.

    Raises:
        BadInput: ``idle_days`` are fewer than a window spans.
    """
    if idle_days < window_days:
        raise BadInput(
            f"INTEREST_IDLE_DAYS is {idle_days:g}, shorter than a window ({window_days:g} days): "
            "users would come back without what still counts"
        )


class Worker:
    """Owns some partitions of the group, and keeps the vectors of their users fresh.

    Raises:
        BadInput: settings contradict each other.
    """

    #: There once the worker is started.
    parts: WorkerParts

    def __init__(self, ports: WorkerPorts) -> None:
        settings = ports.settings
        check_idle_days(settings.idle_days, ports.bundle.config.window.span_ms / _DAY_MS)
        check_pseudonyms(settings.pseudonym_key, encrypted=ports.sealer.seals)
        self.ports = ports
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._devices = (
            ThreadPoolExecutor(1, "user-encoder"),
            ThreadPoolExecutor(1, "item-encoder"),
        )
        self._recovered = asyncio.Event()
        self._outbox: Outbox | None = None

    @property
    def windows(self) -> WindowStore:
        """The windows of this worker's partitions."""
        return self.parts.windows

    @property
    def dirty(self) -> DirtyUsers:
        """Who waits to be encoded."""
        return self.parts.dirty

    @property
    def progress(self) -> Progress:
        """How far the sources are read and committed."""
        return self.parts.progress

    @property
    def feed(self) -> ItemsFeed:
        """The items this worker knows."""
        return self.parts.feed

    async def start(self) -> None:
        """Join the group; return when the first assignment is recovered and being read.

        Raises:
            ServiceUnavailable: the broker or a store does not answer.
            TopicMismatch: the topics on the broker do not fit together.
        """
        settings, metrics = self.ports.settings, self.ports.metrics
        topics = await ensure_topics(settings)
        await self.ports.items.open()
        seal = letters_sealed(TopicNames.of(settings).dead_letters, self.ports.sealer)
        self._outbox = Outbox(settings, metrics, seal)
        await self._outbox.start()
        parts = self.parts = WorkerParts(
            self.ports, topics.counts, self._outbox, devices=self._devices,
            renew_redis=self._renew_redis,
            on_failure=lambda error: self._fail(WorkerFailed(f"an agent failed: {error!r}")),
        )  # fmt: skip
        parts.windows.on_recovered = self._on_recovered
        parts.windows.on_unreadable = self._fail
        parts.app.on_partitions_revoked.connect(self._on_revoked)
        self._spawn("items feed", parts.feed.run())
        await self._or_failure(parts.feed.caught_up.wait())
        await self._point_readers()
        await parts.app.start()  # in the middle of it Faust could not be stopped in order
        if self._failed.done():
            self._failed.result()
        for name, job in (
            ("micro-batches", parts.batches.run()),
            ("holders", parts.holders.run()),
            ("overtaken items", parts.overtaken.run()),
            ("checkpoint", parts.checkpoint.run(parts.consumer)),
            ("forgetting", parts.forgetting.run()),
            ("idle users", parts.idle_users.run()),
            ("live quality", parts.quality.run()),
            ("control", parts.control.run()),
            ("broker", parts.broker.watch()),
            ("redis", parts.redis.watch()),
            ("lag", watch_lag(parts.lag, self.unready, parts.dirty, parts.progress, metrics)),
            ("faust", self._watch_faust()),
        ):
            self._spawn(name, job)
        if settings.watchdog_s:
            self._spawn("watchdog", parts.watchdog.run())
        await self._or_failure(self._recovered.wait())

    async def _point_readers(self) -> None:
        live = LiveModel(
            model_id=self.ports.bundle.model_id,
            collection=self.ports.collection,
            dim=self.ports.bundle.dim,
            paths=self.ports.bundle.config.paths,
        )
        before = await self.ports.vectors.live_model()
        if before != live:
            if before is not None:
                log.warning("live model: %s instead of %s", live.model_id, before.model_id)
            await self.ports.vectors.set_live_model(live)

    def _on_recovered(self, partitions: Iterable[Partition]) -> None:
        self._recovered.set()
        recovered = list(partitions)
        self.parts.assignment.hold_back(recovered)
        self._spawn("assignment", self.parts.assignment.settle(recovered, self.parts.consumer))

    async def _on_revoked(self, *args: Any, **kwargs: Any) -> None:
        try:
            await asyncio.wait_for(
                self.parts.checkpoint.take(self.parts.consumer), _REVOKED_CHECKPOINT_S
            )
        except (TimeoutError, KafkaError, ServiceUnavailable) as error:
            log.info("revoked without a checkpoint (%r); the next owner reads again", error)

    async def _renew_redis(self) -> None:
        """Fill a Redis that was emptied or restored from an older copy."""
        await self._point_readers()
        partitions = list(self.windows.partitions.values())
        await self.ports.vectors.restore_markers(
            [
                marker
                for partition in partitions
                for marker in partition.markers.values()
                if marker.place
            ]
        )
        for partition in partitions:
            await self.parts.assignment.reconcile(partition)
        await self.parts.checkpoint.publish_popular(partitions)

    def _spawn(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the %s task failed", task.get_name(), exc_info=error)
            what = WorkerFailed(f"the {task.get_name()} task failed: {error!r}")
            self._fail(error if isinstance(error, TopicMismatch) else what)

    def _fail(self, error: InterestError) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _watch_faust(self) -> None:
        await self.parts.app.wait_until_stopped()
        reason = self.parts.app.crash_reason
        self._fail(WorkerFailed(f"Faust stopped: {reason!r}" if reason else "Faust stopped"))

    async def _or_failure(self, wait: Coroutine[Any, Any, Any]) -> None:
        waiting = asyncio.ensure_future(wait)
        await asyncio.wait({waiting, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            waiting.cancel()
            self._failed.result()

    async def failure(self) -> None:
        """Wait until the worker cannot go on, and raise why.

        Raises:
            WorkerFailed, TopicMismatch: always one of them.
        """
        await asyncio.shield(self._failed)

    def unready(self) -> list[str]:
        """Say why this worker is not ready; nothing where it is."""
        reasons: list[str] = []
        if self._failed.done():
            reasons.append("the worker has failed")
        reasons.extend(
            away
            for away in (self.parts.broker.away, self.parts.redis.away, self.parts.batches.stuck)
            if away
        )
        if not self._recovered.is_set():
            reasons.append("recovering windows from the changelog")
        elif self.parts.app.rebalancing:
            reasons.append("the consumer group is rebalancing")
        return reasons

    async def lag(self) -> dict[str, int]:
        """Count the records of each source topic that this worker has yet to read."""
        return await self.parts.lag.by_topic()

    async def idle(self) -> bool:
        """Tell whether everything published so far is read and its vectors are readable."""
        # In the order in which work flows: what is passed on is seen in the next place.
        return not (
            sum((await self.lag()).values())
            or self.parts.forgetting.pending
            or await self.feed.behind()
            or self.parts.overtaken.pending
            or self.parts.holders.pending
            or len(self.dirty)
        )

    async def stop(self) -> None:
        """Take a last checkpoint where the services answer, leave the group, stop."""
        app = self.parts.app if hasattr(self, "parts") else None
        if app is not None and app.started and not app.crash_reason:
            try:
                await asyncio.wait_for(
                    self.parts.checkpoint.take(self.parts.consumer), _FINAL_CHECKPOINT_S
                )
            except (TimeoutError, KafkaError, ServiceUnavailable) as error:
                log.warning("stopped without a last checkpoint: %r", error)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # With the broker away each would wait for minutes; what they hold is read again.
        if app is not None:
            await _within("Faust", app.stop())
        if self._outbox is not None:
            await _within("the producer", self._outbox.stop())
        for device in self._devices:
            device.shutdown(wait=False)
        if app is not None:
            self.parts.windows.close()


async def _within(what: str, stopping: Coroutine[Any, Any, Any]) -> None:
    try:
        await asyncio.wait_for(stopping, _STOP_S)
    except TimeoutError:
        log.warning("%s did not stop in %g s", what, _STOP_S)
