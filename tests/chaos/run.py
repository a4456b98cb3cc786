"""A run: load, scripted cases, chance, rest, verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np
from aiokafka.errors import KafkaError

from tests.chaos.chance import Chance
from tests.chaos.options import Options
from tests.chaos.rig import Rig, open_rig
from tests.chaos.scripted import CASES
from tests.chaos.topics import total
from tests.chaos.verdict import Verdict, judge

_TOLD: Final = (
    "stops", "zombies", "rebalances", "redis restarts", "broker restarts", "forgets"
)  # fmt: skip
#: Differences shown from either end of the list.
_SHOWN: Final = 10
_TICK_S: Final = 0.05
_PROGRESS_S: Final = 10.0
_LAG_S: Final = 1.5
_PENDING_ALLOWED: Final = 2_000
_CANCEL_AGAIN_S: Final = 1.0


async def _load(rig: Rig) -> None:
    """Send at the rate that was asked for, less where the workers are far behind."""
    rate = rig.options.rate
    due = 0.0
    while True:
        await asyncio.sleep(_TICK_S)
        if rig.far_behind or rig.producers.n_pending > _PENDING_ALLOWED:
            continue
        due += rate * _TICK_S
        for _ in range(int(due)):
            producer = rig.rng.randrange(2)
            message = rig.shop.message(producer)
            if (message.key or b"").decode() not in rig.muted:
                rig.producers.send(producer, rig.names.behaviours, [message])
                rig.counts["events"] += 1
        due -= int(due)


async def _watch_lag(rig: Rig) -> None:
    while True:
        try:
            rig.counts["lag"] = total(await rig.log.behind(rig.sources))
        except (KafkaError, OSError):
            rig.counts["lag unknown"] += 1  # the broker is being restarted
        await asyncio.sleep(_LAG_S)


async def _progress(rig: Rig, began: float) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_S)
        alive = rig.fleet.alive
        n_stopped = sum(worker.stopped for worker in alive)
        done = " ".join(
            f"{name} {n}" for name, n in sorted(rig.counts.items()) if n and name != "lag unknown"
        )
        passed_s = time.monotonic() - began
        workers = f"workers {len(alive)} ({n_stopped} stopped)"
        print(f"{passed_s:5.0f} s  {workers}  {done}", flush=True)


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    A consumer of aiokafka that is just being closed takes a cancellation for that of its own
    tasks, and swallows it.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)  # what they raised was looked at before


async def _while_running(rig: Rig, tasks: list[asyncio.Task[None]]) -> None:
    """Carry out the cases and the random part; a failure of load or progress ends it."""

    async def disturb() -> None:
        for name in rig.options.scripted:
            print(f"        case {name}", flush=True)
            await CASES[name](rig)
        await Chance(rig).run(rig.options.seconds)

    disturbing = asyncio.create_task(disturb())
    try:
        await asyncio.wait({disturbing, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        await disturbing
    finally:
        await _end([disturbing])


async def run(options: Options, folder: Path) -> int:
    """Run once in a folder of its own; print what came of it; return 0 if all is well.

    Raises:
        HarnessFailed: it could not be carried out, or did not come to rest.
    """
    began = time.monotonic()
    print(f"seed {options.seed} on {options.broker}: starting", flush=True)
    async with open_rig(options, folder) as rig:
        tasks = [
            asyncio.create_task(job) for job in (_load(rig), _watch_lag(rig), _progress(rig, began))
        ]
        try:
            await _while_running(rig, tasks[:2])
            await _end(tasks[:2])
            rig.fleet.wake_all()
            await rig.fleet.release_all()
            rig.fleet.scale(options.workers)
            verdict = await judge(rig)
        finally:
            await _end(tasks)
        print(summary(rig, verdict), flush=True)
        if verdict.good:
            return 0
        print(f"FAILED  first difference: {verdict.differences[0]}")
        # What the reader saw comes last, and often tells most.
        rest = verdict.differences[1:]
        for difference in rest if len(rest) <= 2 * _SHOWN else rest[:_SHOWN] + rest[-_SHOWN:]:
            print(f"        {difference}")
        for surprise in rig.fleet.surprises[:5]:
            print(f"        (a worker gave up: {surprise})")
        print(f"repeat with: {options.command()}", flush=True)
        return 1


def summary(rig: Rig, verdict: Verdict) -> str:
    """Say in a line what was done, and what came of it."""
    counts = rig.counts
    done = [f"events {counts['events']}", f"kills {counts['kills']}"]
    done += [f"{name} {counts[name]}" for name in _TOLD if counts[name]]
    if rig.fleet.surprises:
        done.append(f"gave up {len(rig.fleet.surprises)}")
    done += [f"{name} {n}" for name, n in verdict.counts.items() if name != "dead"]
    done.append(f"dead {verdict.n_dead} (poison sent {verdict.n_poison})")
    done.append(f"reads {counts['reads']}")
    if rig.recoveries_s:
        p50, p99 = np.percentile(rig.recoveries_s, (50, 99))
        done.append(f"recovered p50 {p50:.1f} p99 {p99:.1f} s")
    return " ".join(done)
