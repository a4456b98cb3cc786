"""The random part: what happens next is drawn from the seed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from redis.exceptions import RedisError

from tests.chaos.fleet import Away, WorkerProcess
from tests.chaos.orders import STEPS
from tests.chaos.rig import SESSION_S, Rig
from tests.chaos.services import HarnessFailed

_PAUSE_S: Final = (0.3, 2.5)
#: Most stops are long enough to lose the partitions, and some are long.
_STOPS_S: Final = (1.0, SESSION_S + 1, SESSION_S + 3, SESSION_S + 8, 40.0, 150.0)
_STOP_WEIGHTS: Final = (3, 4, 3, 2, 1, 0.3)
_AIM_S: Final = 3.0


class Chance:
    """Draws disturbances until the time is over; at least one worker is left to work."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._rng = rig.rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._probed: set[int] = set()
        self._deadline = 0.0
        draws: dict[Callable[[], Awaitable[None]], float] = {
            self._kill: 4,
            self._aimed_kill: 6,
            self._terminate: 2,
            self._stop: 3,
            self._aimed_stop: 5,
            self._add: 2,
            self._remove: 2,
            self._kill_and_add: 1,
            self._item: 4,
            self._redis_kept: 1,
            self._redis_emptied: 0.5,
            self._redis_copied: 1.5,
            self._redis_older: 0.5,
        }
        if rig.forgets:
            draws[self._forget] = 3
        if rig.broker.can_restart:
            draws[self._broker] = 1
        self._draws = draws

    async def run(self, seconds: float) -> None:
        """Disturb for so long, then let what is under way end.

        Raises:
            HarnessFailed: something did not recover.
        """
        self._deadline = time.monotonic() + seconds
        while time.monotonic() < self._deadline:
            if self._rig.far_behind:
                await asyncio.sleep(_PAUSE_S[0])
                self._check()
                continue
            [draw] = self._rng.choices(list(self._draws), list(self._draws.values()))
            try:
                await draw()
            except (Away, RedisError):
                self._rig.counts["missed"] += 1  # aimed at one that had just gone
            await asyncio.sleep(self._rng.uniform(*_PAUSE_S))
            self._check()
        self._rig.fleet.wake_all()
        await asyncio.gather(*self._tasks)

    def _check(self) -> None:
        for task in list(self._tasks):
            if task.done():
                self._tasks.discard(task)
                task.result()

    def _later(self, job: Awaitable[None]) -> None:
        self._tasks.add(asyncio.ensure_future(job))

    def _probe(self, partitions: Collection[int]) -> None:
        """Time the recovery of partitions, unless it is being timed."""
        fresh = set(partitions) - self._probed
        self._probed |= fresh

        async def probe() -> None:
            try:
                await self._rig.probe(fresh)
            finally:
                self._probed -= fresh

        if fresh:
            self._later(probe())

    def _victim(self) -> WorkerProcess | None:
        working = self._rig.fleet.working
        return self._rng.choice(working) if self._rig.steady and len(working) > 1 else None

    async def _kill(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._rig.kill(victim)
            self._probe(victim.owned)

    async def _terminate(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._rig.counts["terms"] += 1
            victim.expected_end = True
            victim.signal(signal.SIGTERM)
            self._probe(victim.owned)

    async def _aimed_kill(self) -> None:
        victim = self._victim()
        if victim is None:
            return
        step = self._rng.choice(STEPS)
        victim.expected_end = True
        await victim.aim(step, "kill")
        if await self._came(victim, step):
            self._rig.counts["kills"] += 1
            self._rig.counts["aimed"] += 1
            self._probe(victim.owned)

    async def _came(self, victim: WorkerProcess, step: str) -> bool:
        """Wait a little for a worker to come to a step; where it does not, forget the aim."""
        try:
            await self._rig.fired(victim, step, _AIM_S)
        except HarnessFailed:
            await victim.ask("release")
            return step in victim.fired
        return True

    async def _stop(self) -> None:
        victim = self._victim()
        if victim is not None:
            victim.signal(signal.SIGSTOP)
            self._sleeping(victim)

    async def _aimed_stop(self) -> None:
        victim = self._victim()
        if victim is None:
            return
        step = self._rng.choice(STEPS)
        await victim.aim(step, "stop")
        if await self._came(victim, step):
            self._rig.counts["aimed"] += 1
            self._sleeping(victim)

    def _sleeping(self, victim: WorkerProcess) -> None:
        self._rig.counts["stops"] += 1
        [seconds] = self._rng.choices(_STOPS_S, _STOP_WEIGHTS)
        seconds = min(seconds, max(1.0, self._deadline - time.monotonic()))

        async def wake() -> None:
            await asyncio.sleep(seconds)
            victim.signal(signal.SIGCONT)

        self._later(wake())
        if seconds > SESSION_S:
            self._probe(victim.owned)

    async def _add(self) -> None:
        fleet = self._rig.fleet
        if self._rig.steady and fleet.n_wanted < self._rig.options.workers + 2:
            self._rig.counts["rebalances"] += 1
            fleet.scale(fleet.n_wanted + 1)

    async def _remove(self) -> None:
        fleet = self._rig.fleet
        if self._rig.steady and fleet.n_wanted > 2:
            self._rig.counts["rebalances"] += 1
            fleet.scale(fleet.n_wanted - 1)

    async def _kill_and_add(self) -> None:
        """Disturb a recovery: one dies, another comes, and one more goes while they recover."""
        await self._kill()
        await self._add()
        await asyncio.sleep(self._rng.uniform(0.5, SESSION_S + 2))
        await self._kill()

    async def _item(self) -> None:
        self._later(self._rig.write_item(self._rng.choice(self._rig.shop.items)))

    async def _redis_kept(self) -> None:
        await self._rig.lose_redis("none", self._rng.uniform(0, 2))

    async def _redis_emptied(self) -> None:
        await self._rig.lose_redis("all", self._rng.uniform(0, 2))

    async def _redis_copied(self) -> None:
        await self._rig.redis.copy()

    async def _redis_older(self) -> None:
        if self._rig.redis.has_copy:
            await self._rig.lose_redis("old", self._rng.uniform(0, 2))

    async def _broker(self) -> None:
        await self._rig.restart_broker(self._rng.uniform(0, 3))

    async def _forget(self) -> None:
        user = self._rng.choice(self._rig.shop.fickle)
        if user not in self._rig.muted:
            self._later(self._rig.forget(user))
