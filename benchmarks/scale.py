"""How the worker scales: events/s of 1, 2 and 4 workers in one group, and what a user takes.

    python -m benchmarks scale [--events 300000] [--workers 1 2 4]

The workers join the group, recover full windows and pause the log's partitions; then the log is
sent, and all resume at once: so neither joining nor sending is in the time. Broker and workers
share the cores of this machine: more workers than cores show no more than that nothing gets worse.
By number of users: ``python -m benchmarks many-users``. Redis: what 5,000 users take of it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any, Final, NamedTuple

import redis

from benchmarks.encryption import vector_update
from benchmarks.event_log import full_windows, log, preload, send
from benchmarks.many_users import any_broker, note
from benchmarks.results import Measurement, Report
from benchmarks.servers import BROKERS, Servers
from benchmarks.stubs import bundle, run_as_worker, stub_worker
from interest.settings import Settings
from interest.window import WindowLimits
from interest_cli.wiring import user_vectors

NAME: Final = "scale"
_PARTITIONS: Final = 8
_DIMS: Final = (64, 384)
_USERS_IN_REDIS: Final = 5_000
_PIPELINE: Final = 256
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
        for dim in _DIMS:
            rows += _redis(running, dim)
    return Report(tuple(rows))


def _group(running: Servers, n_workers: int, n_events: int, limit_s: float) -> float:
    """Let so many workers read the log; give the events/s of all of them.

    Raises:
        RuntimeError: they do not come to share the partitions.
    """
    prefix = f"scale-{uuid.uuid4().hex[:8]}-"
    settings = Settings(
        kafka_bootstrap=running.kafka_bootstrap, topic_prefix=prefix, group_id=f"{prefix}workers",
        partitions=_PARTITIONS, session_timeout_s=20.0,
    )  # fmt: skip
    asyncio.run(preload(settings, bundle(), 0))
    with _workers_of(settings, n_workers) as (processes, shared):
        _wait(lambda: all(shared.owned) and sum(shared.owned) == _PARTITIONS, processes)
        send(settings.kafka_bootstrap, log(settings, n_events))
        before = sum(shared.read)
        began = time.perf_counter()
        shared.go.set()
        _wait(
            lambda: sum(shared.read) >= n_events or time.perf_counter() - began > limit_s,
            processes,
        )
        n_read: int = sum(shared.read) - before
        return n_read / (time.perf_counter() - began)


class _Shared(NamedTuple):
    """What the workers tell: events read, and partitions that each owns, recovered and paused."""

    read: Any
    owned: Any
    go: Any


@contextmanager
def _workers_of(settings: Settings, n_workers: int) -> Iterator[tuple[list[SpawnProcess], _Shared]]:
    spawn = multiprocessing.get_context("spawn")
    shared = _Shared(
        spawn.Array("q", n_workers, lock=False), spawn.Array("q", n_workers, lock=False),
        spawn.Event(),
    )  # fmt: skip
    processes = [spawn.Process(target=_serve, args=(settings, i, shared)) for i in range(n_workers)]
    for process in processes:
        process.start()
    try:
        yield processes, shared
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(settings: Settings, index: int, shared: _Shared) -> None:
    """Be one worker of the group until killed."""

    async def serve() -> None:
        worker, _ = stub_worker(settings, bundle())
        await worker.start()
        consumer, topic = worker.parts.consumer, worker.parts.names.behaviours
        while True:
            own = {tp for tp in consumer.assignment() if tp.topic == topic}
            if not shared.go.is_set() and not worker.unready():
                consumer.pause_partitions(own)  # again and again: a rebalance resumes
                shared.owned[index] = len(own)
            elif shared.go.is_set() and shared.owned[index]:
                consumer.resume_partitions(own)
                shared.owned[index] = 0
            shared.read[index] = sum(worker.progress.positions.values())
            await asyncio.sleep(_POLL_S)

    run_as_worker(serve())


def _wait(condition: Any, processes: Sequence[SpawnProcess]) -> None:
    deadline = time.monotonic() + _SETTLED_S
    while not condition():
        if time.monotonic() > deadline or any(process.exitcode for process in processes):
            raise RuntimeError("the workers have ended, or do not share the partitions")
        time.sleep(_POLL_S)


def _redis(running: Servers, dim: int) -> list[Measurement]:
    """Say what a user takes of a real Redis: vector, recent behaviours, and its own overhead.

    And how many it takes a second, from one client that shares the cores with it.
    """
    settings = Settings(redis_url=running.redis_url, redis_prefix=f"scale-{dim}:")

    async def fill() -> float:
        vectors = user_vectors(settings)
        await vectors.ping()
        windows = full_windows(WindowLimits().max_events, _USERS_IN_REDIS)
        updates = [vector_update(window, i, dim) for i, window in enumerate(windows)]
        began = time.perf_counter()
        for first in range(0, len(updates), _PIPELINE):
            await vectors.upsert(updates[first : first + _PIPELINE])
        seconds = time.perf_counter() - began
        await vectors.close()
        return len(updates) / seconds

    with redis.Redis.from_url(running.redis_url) as client:
        before = client.info("memory")["used_memory"]
        rate = asyncio.run(fill())
        grown = client.info("memory")["used_memory"] - before
    subject = "a user in Redis, 50 events"
    return [
        Measurement(
            benchmark=NAME, subject=subject, name=f"memory, {dim} dimensions", unit="bytes",
            value=grown / _USERS_IN_REDIS,
        ),
        Measurement(
            benchmark=NAME, subject=subject, name=f"upserts, {dim} dimensions", unit="1/s",
            value=rate,
        ),
    ]  # fmt: skip


def _workers(broker: str, n: int, rates: dict[int, list[float]]) -> Measurement:
    least = min(rates)
    return Measurement(
        benchmark=NAME, subject=f"{broker}: {n} workers", name="rate", unit="events/s",
        value=statistics.median(rates[n]), runs=tuple(rates[n]),
        ratio=statistics.median(rates[n]) / statistics.median(rates[least]),
        ratio_to=f"{least} workers",
    )  # fmt: skip
