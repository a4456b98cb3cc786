"""Many users: events/s and memory of the worker with 10k, 100k and 1M users, encoder stubbed.

    python -m benchmarks many-users [--events 300000] [--users 10000 100000 1000000]

Users are drawn by Zipf's law with exponent 1: the first of a million has one event in 14, and most
have one or none. There are no windows before the log; its first half is read before the clock
starts, so that the frequent users' windows are full. Sizes take turns, each run with topics and a
process of its own.

The memory of a full window is a difference: a worker that has recovered 25,000 windows of 50 events
against one that has recovered 5,000, by resident memory; and 2,500 against 500 by what Python's
objects take (tracemalloc). So it holds all that a worker keeps for a window: key, token, index.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import msgspec
import numpy as np

from benchmarks.event_log import by_zipf, full_windows, preload
from benchmarks.ingest_job import Job, Run
from benchmarks.results import Measurement, Report
from benchmarks.servers import BROKERS, Servers, Unavailable, servers
from benchmarks.stubs import bundle, settings_of
from interest.window_bytes import window_to_bytes
from streams.topics import TopicNames

NAME: Final = "many-users"
SIZES: Final = (10_000, 100_000, 1_000_000)
_PARTITIONS: Final = 4
#: So many that what is fetched and not restored yet is as much in both.
_WINDOWS: Final = (60_000, 160_000)
#: Tracing makes all of it many times slower.
_TRACED: Final = (5_000, 10_000)
_SIZED: Final = 1_000
#: Some events after the windows, so that it is seen when recovery is over.
_AFTERWARDS: Final = 1_000
_PATIENCE_S: Final = 180.0


def run(arguments: Sequence[str]) -> Report:
    """Measure on Apache Kafka, or on the embedded broker where that is absent."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--users", nargs="+", type=int, default=SIZES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=6.0, help="of one run, at most")
    parser.add_argument("--broker", choices=BROKERS)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        running = any_broker(stack, options.broker)
        rates, rows = _by_size(running, options)
        windows, window_rows = _window(running, options.repeats)
    least, most = min(options.users), max(options.users)
    values: dict[str, float | str] = {"window": statistics.median(windows)}
    if (least, most) == (SIZES[0], SIZES[-1]):
        values["rate"] = statistics.median(rates[most]) / statistics.median(rates[least])
    return Report((*rows, *window_rows), values)


def any_broker(stack: ExitStack, wanted: str | None = None) -> Servers:
    """Start Apache Kafka, or else the embedded broker, until the stack is left."""
    for broker in (wanted,) if wanted else tuple(reversed(BROKERS)):
        try:
            return stack.enter_context(servers(broker))
        except Unavailable as error:
            note(str(error))
    raise Unavailable("no broker")


def _by_size(
    running: Servers, options: argparse.Namespace
) -> tuple[dict[int, list[float]], list[Measurement]]:
    rates: dict[int, list[float]] = {n: [] for n in options.users}
    memory: dict[int, list[float]] = {n: [] for n in options.users}
    vectors: dict[int, list[float]] = {n: [] for n in options.users}
    for repeat in range(options.repeats):
        for n_users in options.users:
            users = by_zipf(options.events, n_users, repeat)
            done = _run(
                running, options.events, users=users, n_warm=options.events // 2,
                limit_s=options.limit_s,
            )  # fmt: skip
            rates[n_users].append(done.n_events / done.wall_s)
            vectors[n_users].append(done.n_vectors / done.wall_s)
            # Where the limit cut the run, these are about the users of what was read.
            n_read = done.n_warm + done.n_events
            memory[n_users].append(done.grown_bytes / len(np.unique(users[:n_read])))
            note(
                f"{n_users:,} users, {repeat + 1} of {options.repeats}: {rates[n_users][-1]:,.0f}/s"
            )
    against = statistics.median(rates[min(options.users)])
    rows: list[Measurement] = []
    for n_users in options.users:
        subject = f"{running.broker}: {n_users:,} users"
        ratio = statistics.median(rates[n_users]) / against
        rows += [
            _row(
                subject, "rate", "events/s", rates[n_users], ratio, f"{min(options.users):,} users"
            ),
            _row(subject, "vectors meanwhile", "vectors/s", vectors[n_users]),
            _row(subject, "resident memory per user seen", "bytes", memory[n_users]),
        ]
    return rates, rows


def _window(running: Servers, repeats: int) -> tuple[list[float], list[Measurement]]:
    resident: list[float] = []
    for repeat in range(repeats):
        small, large = (_recovered(running, n).grown_bytes for n in _WINDOWS)
        resident.append((large - small) / (_WINDOWS[1] - _WINDOWS[0]))
        note(f"a full window, {repeat + 1} of {repeats}: {resident[-1]:,.0f} bytes resident")
    small, large = (_recovered(running, n, traced=True).traced_bytes for n in _TRACED)
    traced = [(large - small) / (_TRACED[1] - _TRACED[0])]
    subject = "a window of 50 events"
    limits = bundle().config.window
    records = [len(window_to_bytes(w, 0)) for w in full_windows(limits.max_events, _SIZED)]
    return resident, [
        _row(subject, "resident memory", "bytes", resident),
        _row(subject, "Python's objects", "bytes", traced),
        _row(subject, "changelog record", "bytes", [statistics.mean(records)]),
    ]


def _recovered(running: Servers, n_windows: int, *, traced: bool = False) -> Run:
    """Recover full windows, and nearly nothing else."""
    return _run(running, _AFTERWARDS, n_windows=n_windows, limit_s=_PATIENCE_S / 2, traced=traced)


def _run(
    running: Servers, n_events: int, *, limit_s: float, users: Sequence[int] = (),
    n_windows: int = 0, n_warm: int = 0, traced: bool = False,
) -> Run:  # fmt: skip
    prefix = f"many-{uuid.uuid4().hex[:8]}-"
    settings = settings_of(running.kafka_bootstrap, prefix, _PARTITIONS)
    asyncio.run(preload(settings, bundle(), n_events, n_windows=n_windows, users=users))
    job = Job(
        running.kafka_bootstrap, prefix, TopicNames.of(settings).behaviours, n_events,
        _PARTITIONS, limit_s, n_warm, traced,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ingest_runners", "worker", msgspec.json.encode(job)],
        stdout=subprocess.PIPE, check=True, timeout=limit_s + _PATIENCE_S,
    )  # fmt: skip
    return msgspec.json.decode(done.stdout, type=Run)


def _row(
    subject: str, name: str, unit: str, values: Sequence[float], ratio: float | None = None,
    ratio_to: str = "",
) -> Measurement:  # fmt: skip
    return Measurement(
        benchmark=NAME, subject=subject, name=name, unit=unit, value=statistics.median(values),
        runs=tuple(values), ratio=ratio, ratio_to=ratio_to,
    )  # fmt: skip


def note(what: str, name: str = NAME) -> None:
    """Say how far it is."""
    print(f"{name}: {what}", file=sys.stderr, flush=True)
