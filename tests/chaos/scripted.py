"""Cases that chance would meet too rarely, each aimed at the exact step.

A case sends the events it needs itself, for users of its own, and works with and without other
load. Whether nothing was lost is for the oracle to say, at the end of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from tests.chaos.fleet import Away, WorkerProcess
from tests.chaos.rig import SESSION_S, Rig
from tests.chaos.services import HarnessFailed

_USERS: Final = itertools.count()
_HELD_S: Final = 30.0
#: How often a worker is aimed at, and for how long each time: a rebalance may come between.
_AIMS: Final = 5
_AIM_S: Final = 20.0
#: In which a worker tries a refused upsert several times.
_RETRIES_S: Final = 3.0


async def _new_user(rig: Rig, n_events: int = 2) -> str:
    """Make a user with some events that are readable and committed."""
    number = next(_USERS)
    user = rig.shop.user_of(f"case{number}", number % rig.options.partitions,
                            rig.options.partitions)  # fmt: skip
    rig.watch(user)
    for _ in range(n_events):
        await rig.write_event(user)
    await _committed(rig, user)
    return user


async def _committed(rig: Rig, user: str) -> None:
    """Send an event, wait until it is readable and the offset behind it committed."""
    await rig.readable(user, await rig.write_event(user))
    partition = rig.partition(user)
    topic = rig.names.behaviours
    end = await rig.log.end(topic, partition)

    async def passed() -> bool:
        return await rig.log.committed(topic, partition) >= end

    await rig.until(f"partition {partition} is committed to {end}", passed)


async def _owner(rig: Rig, user: str, other_than: WorkerProcess | None = None) -> WorkerProcess:
    """Wait until a worker that works owns a user."""

    async def found() -> WorkerProcess | None:
        return rig.fleet.owner(rig.partition(user), other_than)

    owner: WorkerProcess = await rig.until(f"somebody owns {user}", found)
    return owner


async def _wake(rig: Rig, zombie: WorkerProcess, step: str) -> None:
    """Wake a stopped worker, which stops again at ``step``, and kill it there."""
    rig.counts["zombies"] += 1
    zombie.signal(signal.SIGCONT)
    await rig.fired(zombie, step)
    rig.kill(zombie)
    await zombie.gone.wait()


async def _stopped_at(rig: Rig, user: str, step: str) -> WorkerProcess:
    """Stop the owner of a user between two steps, until it has lost its partitions to others."""
    before, after = f"before-{step}", f"after-{step}"
    for attempt in range(_AIMS):
        zombie = await _owner(rig, user)
        await zombie.aim(before, "stop", user)
        await zombie.aim(after, "stop", user)
        await rig.write_event(user)
        try:
            if await rig.first_fired(zombie, before, after, seconds=_AIM_S) == before:
                break
            zombie.signal(signal.SIGCONT)  # it was between the two already
        except HarnessFailed:
            if attempt == _AIMS - 1:
                raise
            with contextlib.suppress(Away):
                await zombie.ask("release")  # it has lost the user to another one meanwhile
    rig.counts["stops"] += 1
    await _owner(rig, user, zombie)
    return zombie


async def zombie_upsert(rig: Rig) -> None:
    """A worker wakes before an upsert that its successor has passed; then the successor dies."""
    user = await _new_user(rig)
    zombie = await _stopped_at(rig, user, "upsert")
    for _ in range(3):
        await _committed(rig, user)
    heir = await _owner(rig, user, zombie)
    await _wake(rig, zombie, "after-upsert")
    rig.kill(heir)
    await rig.probe([rig.partition(user)])


async def zombie_changelog(rig: Rig) -> None:
    """A worker wakes and writes an old window last; then its successor dies."""
    user = await _new_user(rig)
    zombie = await _stopped_at(rig, user, "changelog")
    for _ in range(3):
        await _committed(rig, user)
    heir = await _owner(rig, user, zombie)
    await _wake(rig, zombie, "after-changelog")
    rig.kill(heir)
    await rig.probe([rig.partition(user)])


async def zombie_returns(rig: Rig) -> None:
    """A worker wakes when all others die, and is given back what it had lost.

    The upsert it was stopped before is refused, and the question who owns the partition is asked
    while the worker comes back into the group: what it holds then is old.
    """
    user = await _new_user(rig)
    zombie = await _owner(rig, user)
    await zombie.aim("before-recovery", "hold", rig.names.windows)
    await zombie.aim("before-upsert", "stop", user)
    await rig.write_event(user)
    await rig.fired(zombie, "before-upsert")
    rig.counts["stops"] += 1
    await _owner(rig, user, zombie)
    for _ in range(3):
        await _committed(rig, user)
    rig.fleet.supervised = False
    others = [worker for worker in rig.fleet.alive if worker is not zombie]
    for worker in others:
        rig.kill(worker)
    # The group forgets them, so that the zombie finds it empty and is given everything.
    await asyncio.sleep(SESSION_S + 2)
    rig.counts["zombies"] += 1
    zombie.signal(signal.SIGCONT)
    await rig.fired(zombie, "before-recovery")
    await asyncio.sleep(_RETRIES_S)
    await zombie.ask("release")
    await rig.readable(user, await rig.write_event(user))
    rig.fleet.supervised = True
    rig.fleet.scale(rig.options.workers)
    await rig.shared()


async def _killed_at(rig: Rig, step: str) -> None:
    user = await _new_user(rig)
    owner = await _owner(rig, user)
    await owner.aim(step, "kill", user)
    await rig.write_event(user)
    await rig.fired(owner, step)
    rig.counts["kills"] += 1
    owner.expected_end = True
    await owner.gone.wait()
    await rig.probe([rig.partition(user)])


async def killed_before_changelog(rig: Rig) -> None:
    """A vector is readable, its window nowhere but in the memory that is lost."""
    await _killed_at(rig, "before-changelog")


async def killed_after_changelog(rig: Rig) -> None:
    """A window is in the changelog, and its events will be read again."""
    await _killed_at(rig, "after-changelog")


async def failing_changelog(rig: Rig) -> None:
    """The changelog takes nothing while a commit is due; then the worker dies."""
    user = await _new_user(rig)
    owner = await _owner(rig, user)
    topic, partition = rig.names.behaviours, rig.partition(user)
    await owner.ask("changelog-fails", on=True)
    ts = await rig.write_event(user)
    end = await rig.log.end(topic, partition)
    await rig.readable(user, ts)
    for _ in range(10):  # several times the shortest time between two checkpoints
        if await rig.log.committed(topic, partition) >= end:
            rig.violations.append(f"{user}: committed, though the changelog took nothing")
        await asyncio.sleep(0.2)
    rig.kill(owner)
    await rig.probe([partition])


async def commit_held(rig: Rig) -> None:
    """A commit is decided in one generation and sent in the next."""
    user = await _new_user(rig)
    owner = await _owner(rig, user)
    await owner.aim("before-commit-request", "hold")
    await rig.write_event(user)
    await rig.fired(owner, "before-commit-request")
    rig.fleet.scale(rig.options.workers + 1)
    newcomer = rig.fleet.alive[-1]

    async def joined() -> bool:
        return bool(newcomer.up and newcomer.owned)

    await rig.until("a newcomer owns something", joined, _HELD_S)
    await owner.ask("release")
    rig.kill(newcomer)
    rig.fleet.scale(rig.options.workers)
    await rig.probe([rig.partition(user)])


async def commit_slept_over(rig: Rig) -> None:
    """A worker stops before a commit request, and sends it when others own its partitions."""
    user = await _new_user(rig)
    zombie = await _owner(rig, user)
    await zombie.aim("before-commit-request", "stop")
    await rig.write_event(user)
    await rig.fired(zombie, "before-commit-request")
    rig.counts["stops"] += 1
    heir = await _owner(rig, user, zombie)
    await _committed(rig, user)
    zombie.signal(signal.SIGCONT)
    rig.kill(heir)
    await rig.probe([rig.partition(user)])


async def empty_redis(rig: Rig) -> None:
    """Redis comes back empty; users without new events are there again."""
    user = await _new_user(rig)
    before = await rig.stored(user)
    assert before is not None
    await rig.lose_redis("all")
    await rig.readable(user, before.event_time_ms)


async def older_redis(rig: Rig) -> None:
    """Redis comes back as it was some time ago."""
    user = await _new_user(rig)
    await rig.redis.copy()
    await _committed(rig, user)
    before = await rig.stored(user)
    assert before is not None
    await rig.lose_redis("old")
    await rig.readable(user, before.event_time_ms)


async def forgotten(rig: Rig) -> None:
    """A user is forgotten; a woken worker and a replay of everything do not bring them back."""
    if not rig.forgets:
        return
    user = await _new_user(rig)
    zombie = await _stopped_at(rig, user, "upsert")
    await rig.forget(user)
    await _wake(rig, zombie, "after-upsert")
    await rig.fleet.end_all()
    await rig.log.reset([rig.names.behaviours, rig.names.routed])
    rig.fleet.supervised = True
    rig.fleet.scale(rig.options.workers)
    await rig.shared()
    if await rig.stored(user) is not None:
        rig.violations.append(f"{user} was forgotten, and is back after a replay")


CASES: Final[dict[str, Callable[[Rig], Awaitable[None]]]] = {
    "killed-before-changelog": killed_before_changelog,
    "killed-after-changelog": killed_after_changelog,
    "zombie-upsert": zombie_upsert,
    "zombie-changelog": zombie_changelog,
    "zombie-returns": zombie_returns,
    "failing-changelog": failing_changelog,
    "commit-held": commit_held,
    "commit-slept-over": commit_slept_over,
    "empty-redis": empty_redis,
    "older-redis": older_redis,
    "forgotten": forgotten,
}
