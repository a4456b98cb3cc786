"""One installation under chaos: servers, workers, producers, reader, and what is counted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from interest.partition import partition_of
from interest.settings import Settings
from streams.topics import TopicNames, ensure_topics
from tests.chaos.fleet import Away, Fleet, WorkerProcess
from tests.chaos.load import Message, Shop, now_ms
from tests.chaos.options import Options
from tests.chaos.processes import ROOT, SINGLE_THREADED, die_with
from tests.chaos.producers import Producers
from tests.chaos.records import StoredVector, model_field, user_vector
from tests.chaos.services import Broker, HarnessFailed, RedisLoss, RedisServer
from tests.chaos.topics import Log, total

SESSION_S: Final = 3.0
_POLL_S: Final = 0.03
#: A hang is a failure, a machine with other work is none.
_PATIENCE_S: Final = 300.0
#: Producers and disturbances wait while the group is so many seconds of load behind.
_LAG_ALLOWED_S: Final = 20.0


class Rig:
    """Everything a run is made of; :func:`open_rig` starts it and leaves nothing behind."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.rng = Random(options.seed)
        self.shop = Shop(Random(options.seed + 1), options.partitions)
        self.broker = Broker(options.broker, folder)
        self.redis = RedisServer(folder)
        #: What was done and seen, by name.
        self.counts: Counter[str] = Counter()
        self.recoveries_s: list[float] = []
        self.violations: list[str] = []
        self.muted: set[str] = set()
        #: Orders to the reader that it has not heeded yet, oldest first.
        self._orders: deque[asyncio.Future[None]] = deque()
        self._numbers = list(range(options.partitions))

    async def start(self) -> None:
        """Start servers, workers and reader; return when the workers share the partitions."""
        await self.redis.start()
        await self.broker.start()
        self.settings = Settings(
            kafka_bootstrap=self.broker.bootstrap, redis_url=self.redis.url, redis_prefix="chaos:",
            topic_prefix="chaos-", group_id="chaos", partitions=self.options.partitions,
            session_timeout_s=SESSION_S, fetch_max_wait_ms=20, checkpoint_min_s=0.2, threads=1,
            # Behind this a vector may step back, as documented; a loaded machine is slow.
            catch_up_s=120.0, device="cpu",
        )  # fmt: skip
        self.names = TopicNames.of(self.settings)
        self.fleet = Fleet(self.folder, self.settings, self.options.fault)
        self.log = Log(self.broker.bootstrap, self.settings.group_id, self.options.partitions)
        self._client: Redis = Redis.from_url(
            self.redis.url, socket_timeout=5, socket_connect_timeout=1,
            # After a restart of Redis each pooled connection is dead once.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )  # fmt: skip
        self.producers = Producers(self.broker.bootstrap)
        await self.fleet.start()
        await self.until("the topics", self._topics)
        await self.producers.start()
        await self._start_reader()
        for item_id in self.shop.items[:-5]:  # the last ones come later than their events
            await self.write_item(item_id)
        self.fleet.scale(self.options.workers)
        await self.shared()

    async def _topics(self) -> bool:
        await ensure_topics(self.settings)
        return True

    @property
    def forgets(self) -> bool:
        """Whether this run can ask for users to be forgotten."""
        return hasattr(self.names, "forget") and self.options.forget != "no"

    @property
    def sources(self) -> list[str]:
        """The topics whose offsets the group commits."""
        topics = [self.names.behaviours, self.names.routed, self.names.catalogue]
        return [*topics, *([self.names.forget] if hasattr(self.names, "forget") else [])]

    # Waiting.

    async def until(
        self, what: str, condition: Callable[[], Awaitable[Any]], seconds: float = _PATIENCE_S
    ) -> Any:
        """Wait until a condition holds, and return what it gave.

        Raises:
            HarnessFailed: it does not, in time.
        """
        deadline = time.monotonic() + seconds
        last: Exception | None = None
        while True:
            try:
                found = await condition()
                if found:
                    return found
            except (KafkaError, RedisError, OSError, Away, TimeoutError) as error:
                last = error
            if self.fleet.defect:
                raise HarnessFailed(self.fleet.defect)
            if time.monotonic() > deadline:
                raise HarnessFailed(f"not within {seconds:g} s: {what} ({last!r})")
            await asyncio.sleep(_POLL_S)

    async def shared(self) -> None:
        """Wait until as many workers as are wanted hold every partition, each once."""

        async def whole() -> bool:
            working = self.fleet.working
            held = sorted(number for worker in working for number in worker.owned)
            return len(working) >= self.fleet.n_wanted and held == self._numbers

        await self.until("every partition has one owner", whole)

    @property
    def steady(self) -> bool:
        """Whether membership may be disturbed: always, but for the embedded broker.

        That one may lose its group for ever when members come or leave while it rebalances:
        those that stay join again and again, and are never given an assignment.
        """
        if self.broker.kind != "tansu":
            return True
        held = sorted(number for worker in self.fleet.working for number in worker.owned)
        return len(self.fleet.working) == len(self.fleet.alive) and held == self._numbers

    @property
    def far_behind(self) -> bool:
        """Whether more would only pile up: then nothing of what is tested happens any more."""
        return self.counts["lag"] > self.options.rate * _LAG_ALLOWED_S

    async def quiet(self, seconds: float = _PATIENCE_S) -> None:
        """Wait until everything that was sent is committed and no worker has anything to do."""

        async def idle() -> bool:
            if self.producers.n_pending or any(w.stopped or not w.up for w in self.fleet.alive):
                return False
            if not self.fleet.working:
                return False
            missing = await self.log.behind(self.sources)
            self.counts["lag"] = total(missing)
            if missing:
                raise Away(f"not committed: {missing}")
            return all([await worker.ask("idle") for worker in self.fleet.working])

        await self.shared()
        try:
            await self.until("all is read, stored and committed", idle, seconds)
        except HarnessFailed:
            await self._explain()
            raise

    async def _explain(self) -> None:
        """Leave in the folder where every worker waits."""
        for worker in self.fleet.working:
            try:
                told = json.dumps(await worker.ask("waits"), indent=1)
            except Away as error:
                told = str(error)
            (self.folder / f"{worker.name}.waits").write_text(told)

    async def stored(self, user: str) -> StoredVector | None:
        """Read a user's vector."""
        fields = await self._client.hgetall(f"chaos:user:{user}")
        raw = model_field(cast(dict[bytes, bytes], fields))
        return None if raw is None else user_vector(raw)

    async def keys(self) -> dict[str, StoredVector | None]:
        """Read every user's key."""
        found: dict[str, StoredVector | None] = {}
        async for key in self._client.scan_iter(match="chaos:user:*", count=1000):
            user = key.decode().removeprefix("chaos:user:")
            found[user] = await self.stored(user)
        return found

    async def readable(self, user: str, ts: int, seconds: float = _PATIENCE_S) -> None:
        """Wait until a user's vector shows an event of time ``ts`` or later."""

        async def there() -> bool:
            vector = await self.stored(user)
            return vector is not None and vector.event_time_ms >= ts

        await self.until(f"the vector of {user} shows an event", there, seconds)

    async def fired(self, worker: WorkerProcess, step: str, seconds: float = 60.0) -> None:
        """Wait until a worker has come to a step that it was aimed at, and is stopped or dead."""

        async def there() -> bool:
            return step in worker.fired

        await self.until(f"{worker} comes to {step}", there, seconds)
        worker.fired.remove(step)

    async def first_fired(self, worker: WorkerProcess, *steps: str, seconds: float = 60.0) -> str:
        """Wait until a worker has come to one of some steps, and is stopped or dead; say which."""

        async def there() -> str:
            return next((step for step in worker.fired if step in steps), "")

        step: str = await self.until(f"{worker} comes to one of {steps}", there, seconds)
        worker.fired.remove(step)
        return step

    # Sending.

    async def write_item(self, item_id: str) -> None:
        """Publish a new version of an item."""
        message = Message(item_id.encode(), self.shop.item(item_id))
        await self.producers.write(self.names.catalogue, message)

    async def write_event(self, user: str, **fields: Any) -> int:
        """Send an event of a user now; return its time, Unix ms."""
        ts = now_ms()
        fields = {"type": "click", "item_id": self.shop.items[0], "ts": ts, **fields}
        message = self.shop.event(user, **fields)
        await self.producers.write(self.names.behaviours, message)
        self.counts["events"] += 1
        return ts

    def partition(self, user: str) -> int:
        """Give the partition that is a user's home."""
        return partition_of(user, self.options.partitions)

    async def probe(self, partitions: Collection[int]) -> None:
        """Time how long partitions take to show a fresh event each, from now."""
        began = time.monotonic()

        async def one(number: int) -> None:
            user = self.shop.probes[number]
            await self.readable(user, await self.write_event(user))
            self.recoveries_s.append(time.monotonic() - began)

        await asyncio.gather(*(one(number) for number in partitions))

    async def forget(self, user: str) -> None:
        """Ask for a user to be forgotten, and wait until it is."""
        self.muted.add(user)
        before = now_ms()
        await self._tell_reader({"forget": user, "ms": before})
        body = json.dumps({"user_id": user}).encode()
        request = await self.producers.write(self.names.forget, Message(user.encode(), body))
        self.counts["forgets"] += 1

        async def committed() -> bool:
            # That there is no vector says little: it may be yet to come, or Redis was emptied.
            return await self.log.committed(request.topic, request.partition) > request.offset

        try:
            await self.until(f"{user} is forgotten", committed)
        finally:
            self._tell_reader({"forgotten": user})
            self.muted.discard(user)

    # Breaking.

    async def lose_redis(self, loses: RedisLoss, away_s: float = 0.0) -> None:
        """Restart Redis, with its data or not."""
        self.counts["redis restarts"] += 1
        if loses != "none":
            await self._tell_reader({"losing": True})
        await self.redis.restart(loses, away_s)
        if loses != "none":
            self._tell_reader({"lost": True})

    async def restart_broker(self, away_s: float = 0.0) -> None:
        """Kill the broker, and start it again with its disk."""
        self.counts["broker restarts"] += 1
        await self.broker.restart(away_s)

    def kill(self, worker: WorkerProcess) -> None:
        """Kill a worker without warning."""
        self.counts["kills"] += 1
        worker.expected_end = True
        worker.signal(signal.SIGKILL)

    # The reader.

    async def _start_reader(self) -> None:
        with (self.folder / "reader.log").open("wb") as log:
            self._reader = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "tests.chaos.reader", self.redis.url, "chaos:",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT,
                env={**os.environ, **SINGLE_THREADED}, start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )  # fmt: skip
        self._reading = asyncio.create_task(self._read_reader())
        self._tell_reader({"watch": self.shop.users()})

    def watch(self, *users: str) -> None:
        """Have the reader watch users of a scripted case, too."""
        self._tell_reader({"watch": list(users)})

    def _tell_reader(self, order: dict[str, Any]) -> asyncio.Future[None]:
        """Order something; the future is done when all that is read from there on regards it."""
        assert self._reader.stdin is not None
        self._reader.stdin.write(json.dumps(order).encode() + b"\n")
        heeded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._orders.append(heeded)
        return heeded

    async def _read_reader(self) -> None:
        assert self._reader.stdout is not None
        while raw := await self._reader.stdout.readline():
            said = json.loads(raw)
            if "violation" in said:
                self.violations.append(said["violation"])
            elif "heeded" in said:
                heeded = self._orders.popleft()
                if not heeded.done():  # else nobody waits for it any more
                    heeded.set_result(None)
            elif "rounds" in said:
                self.counts["reads"] = said["rounds"]
        for order in self._orders:
            if not order.done():
                order.set_exception(HarnessFailed("the reader ended"))
                order.exception()  # some are waited for by nobody

    async def end_reading(self) -> None:
        """Let the reader end; every violation is known then.

        Raises:
            HarnessFailed: it has failed before.
        """
        assert self._reader.stdin is not None
        if self._reader.returncode is not None:
            log = (self.folder / "reader.log").read_text("utf-8", "replace")
            raise HarnessFailed(f"the reader ended: {log[-800:]}")
        self._reader.stdin.close()
        await asyncio.wait_for(self._reading, 30)

    async def stop(self) -> None:
        """End everything."""
        if hasattr(self, "_reader"):
            if self._reader.returncode is None:
                self._reader.kill()
            await self._reader.wait()
            await asyncio.gather(self._reading, return_exceptions=True)
        if hasattr(self, "fleet"):
            await self.fleet.stop()
        if hasattr(self, "producers"):
            await self.producers.stop()
        if hasattr(self, "_client"):
            await self._client.aclose()


@asynccontextmanager
async def open_rig(options: Options, folder: Path) -> AsyncIterator[Rig]:
    """Start a rig, and end every process of it in whatever way the block ends."""
    rig = Rig(options, folder)
    try:
        await rig.start()
        yield rig
    finally:
        try:
            await asyncio.shield(rig.stop())
        finally:
            rig.broker.kill()
            rig.redis.kill()
