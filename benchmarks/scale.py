"""How the worker scales: events/s of 1, 2 and 4 workers in one group, and what a user takes.

    python -m benchmarks scale [--events 300000] [--workers 1 2 4]

The workers join the group and recover full windows; then they are stopped (SIGSTOP), the log is
sent, and all are woken at once: so neither joining nor sending is in the time. Broker and workers
share the cores of this machine: more workers than cores show no more than that nothing gets worse.
By number of users: ``python -m benchmarks many-users``. Redis: what 5,000 users take of it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from multiprocessing.context import SpawnProcess
from typing import Any, Final

import redis

from benchmarks.encryption import vector_update
from benchmarks.event_log import full_windows, log, preload, send
from benchmarks.many_users import any_broker, note
from benchmarks.results import Measurement, Report
from benchmarks.servers import BROKERS, Servers
from benchmarks.stubs import bundle, stub_worker
from interest.settings import Settings
from interest.window import WindowLimits
from interest_cli.wiring import user_vectors

NAME: Final = "scale"
_PARTITIONS: Final = 8
_DIMS: Final = (64, 384)
_USERS_IN_REDIS: Final = 5_000
_SETTLED_S: Final = 120.0
_POLL_S: Final = 0.005


def run(arguments: Sequence[str]) -> Report:
    """Measure on Apache Kafka, or on the embedded broker where that is absent."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--workers", nargs="+", type=int, default=(1, 2, 4))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=8.0, help="of one run, at most")
    parser.add_argument("--broker", choices=BROKERS)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        running = any_broker(stack, options.broker)
        rates: dict[int, list[float]] = {n: [] for n in options.workers}
        for repeat in range(options.repeats):
            for n in options.workers:
                rate = _group(running, n, options.events, options.limit_s)
                rates[n].append(rate)
                note(f"{n} workers, {repeat + 1} of {options.repeats}: {rate:,.0f}/s", NAME)
        rows = [_workers(running.broker, n, rates) for n in options.workers]
        rows += [_redis(running, dim) for dim in _DIMS]
    return Report(tuple(rows))


def _group(running: Servers, n_workers: int, n_events: int, limit_s: float) -> float:
    """Let so many workers read the log; give the events/s of all of them.

    Raises:
        RuntimeError: they do not come to share the partitions.
    """
    prefix = f"scale-{uuid.uuid4().hex[:8]}-"
    settings = Settings(
        kafka_bootstrap=running.kafka_bootstrap, topic_prefix=prefix, group_id=f"{prefix}workers",
        partitions=_PARTITIONS, session_timeout_s=30.0,  # they are stopped while the log is sent
    )  # fmt: skip
    asyncio.run(preload(settings, bundle(), 0))
    with _workers_of(settings, n_workers) as (processes, read, owned):
        _wait(lambda: all(owned) and sum(owned) == _PARTITIONS, processes)
        for process in processes:
            os.kill(process.pid or 0, signal.SIGSTOP)
        try:
            send(settings.kafka_bootstrap, log(settings, n_events))
        finally:
            began = time.perf_counter()
            for process in processes:
                os.kill(process.pid or 0, signal.SIGCONT)
        _wait(lambda: sum(read) >= n_events or time.perf_counter() - began > limit_s, processes)
        return sum(read) / (time.perf_counter() - began)


@contextmanager
def _workers_of(
    settings: Settings, n_workers: int
) -> Iterator[tuple[list[SpawnProcess], Sequence[int], Sequence[int]]]:
    """Give the processes; what each has read, and how many partitions it owns and has recovered."""
    spawn = multiprocessing.get_context("spawn")
    read, owned = spawn.Array("q", n_workers, lock=False), spawn.Array("q", n_workers, lock=False)
    processes = [
        spawn.Process(target=_serve, args=(settings, i, read, owned)) for i in range(n_workers)
    ]
    for process in processes:
        process.start()
    try:
        yield processes, read, owned
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(settings: Settings, index: int, read: Any, owned: Any) -> None:
    """Be one worker of the group until killed."""

    async def serve() -> None:
        worker, _ = stub_worker(settings, bundle())
        await worker.start()
        while True:
            owned[index] = 0 if worker.unready() else len(worker.windows.partitions)
            read[index] = sum(worker.progress.positions.values())
            await asyncio.sleep(_POLL_S)

    asyncio.run(serve())


def _wait(condition: Any, processes: Sequence[SpawnProcess]) -> None:
    deadline = time.monotonic() + _SETTLED_S
    while not condition():
        if time.monotonic() > deadline or any(process.exitcode for process in processes):
            raise RuntimeError("the workers have ended, or do not share the partitions")
        time.sleep(_POLL_S)


def _redis(running: Servers, dim: int) -> Measurement:
    """Say what a user takes of a real Redis: vector, recent behaviours, and its own overhead."""
    settings = Settings(redis_url=running.redis_url, redis_prefix=f"scale-{dim}:")

    async def fill() -> None:
        vectors = user_vectors(settings)
        windows = islice(full_windows(WindowLimits().max_events), _USERS_IN_REDIS)
        updates = [vector_update(window, i, dim) for i, window in enumerate(windows)]
        for first in range(0, len(updates), 500):
            await vectors.upsert(updates[first : first + 500])
        await vectors.close()

    with redis.Redis.from_url(running.redis_url) as client:
        before = client.info("memory")["used_memory"]
        asyncio.run(fill())
        grown = client.info("memory")["used_memory"] - before
    return Measurement(
        benchmark=NAME, subject="a user in Redis, 50 events", name=f"memory, {dim} dimensions",
        unit="bytes", value=grown / _USERS_IN_REDIS,
    )  # fmt: skip


def _workers(broker: str, n: int, rates: dict[int, list[float]]) -> Measurement:
    least = min(rates)
    return Measurement(
        benchmark=NAME, subject=f"{broker}: {n} workers", name="rate", unit="events/s",
        value=statistics.median(rates[n]), runs=tuple(rates[n]),
        ratio=statistics.median(rates[n]) / statistics.median(rates[least]),
        ratio_to=f"{least} workers",
    )  # fmt: skip
