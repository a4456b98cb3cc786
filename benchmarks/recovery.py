"""Recovery: a worker is killed; until its group's other one makes vectors of its users.

    python -m benchmarks recovery [--windows 100000] [--repeats 1] [--broker kafka]

Two workers share four partitions and the windows, 50 events each. The one in a process of its own
is killed, and an event of one of its users is sent every 50 ms. The clock stops when the other one
upserts that user. Encoder and vector store are stubs; everything else is the product: the broker
notices the death by the session time-out, the group rebalances, the windows are recovered from the
changelog, the sources are read again, the marks are released.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from benchmarks.event_log import T0_MS, Message, full_windows, send
from benchmarks.results import Measurement, Report
from benchmarks.servers import BROKERS, Servers, Unavailable, servers
from benchmarks.stubs import bundle, run_as_worker, settings_of, stub_worker
from interest.partition import partition_of
from interest.settings import Settings
from interest.window import WindowLimits
from interest.window_bytes import window_to_bytes
from streams.topics import TopicNames, ensure_topics
from streams.worker import Worker

NAME: Final = "recovery"
_PARTITIONS: Final = 4
_LIMIT_S: Final = 120.0
_EVERY_S: Final = 0.05
_PER: Final = 100_000


@dataclasses.dataclass(frozen=True)
class _Run:
    n_windows: int
    seconds: float


def run(arguments: Sequence[str]) -> Report:
    """Measure over one broker."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--windows", type=int, default=200_000, help="half of them move")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--broker", choices=BROKERS, default="kafka")
    options = parser.parse_args(arguments)
    try:
        with servers(options.broker) as running:
            runs = [run_as_worker(_measure(running, options)) for _ in range(options.repeats)]
    except Unavailable as error:
        row = Measurement(
            benchmark=NAME, subject=options.broker, name="recovery", unit="s", skipped=str(error)
        )
        return Report((row,), {"seconds": str(error)})
    session_s = _settings(running).session_timeout_s
    above = [run.seconds - session_s for run in runs]
    n_windows = statistics.median(run.n_windows for run in runs)
    per = [seconds * _PER / run.n_windows for seconds, run in zip(above, runs, strict=True)]
    rows = (
        ("windows that moved", "windows", [float(run.n_windows) for run in runs]),
        ("from the kill to a vector", "s", [run.seconds for run in runs]),
        ("above the session time-out", "s", above),
        ("above the session time-out, per 100k windows", "s", per),
    )
    return Report(
        tuple(
            Measurement(
                benchmark=NAME, subject=f"{options.broker}: {n_windows:,.0f} windows", name=name,
                unit=unit, value=statistics.median(values), runs=tuple(values),
            )
            for name, unit, values in rows
        ),
        {"seconds": statistics.median(per)},
    )  # fmt: skip


def _settings(running: Servers) -> Settings:
    return settings_of(running.kafka_bootstrap, f"recover-{uuid.uuid4().hex[:8]}-", _PARTITIONS)


async def _measure(running: Servers, options: argparse.Namespace) -> _Run:
    settings = _settings(running)
    await ensure_topics(settings)
    _note(f"writing {options.windows:,} windows")
    send(settings.kafka_bootstrap, _windows(settings, options.windows))
    with _victim_process(settings) as victim:
        worker, vectors = stub_worker(settings, bundle())
        await worker.start()
        try:
            moved = await _shared(worker, victim)
            n_moved = options.windows - worker.windows.n_windows()
            probe = next(user for user in _users() if partition_of(user, _PARTITIONS) in moved)
            _note(f"killing the owner of {n_moved:,} windows")
            victim.send_signal(signal.SIGKILL)
            began = time.perf_counter()
            vectors.watched = probe
            await _until_seen(settings, vectors.seen, probe)
            return _Run(n_moved, time.perf_counter() - began)
        finally:
            await worker.stop()


@contextmanager
def _victim_process(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    command = ["-m", "benchmarks.recovery", settings.kafka_bootstrap, settings.topic_prefix]
    with subprocess.Popen([sys.executable, *command]) as process:
        try:
            yield process
        finally:
            process.kill()


async def _shared(worker: Worker, victim: subprocess.Popen[bytes]) -> set[int]:
    """Wait until both workers have recovered their parts; give the other one's partitions."""
    deadline = time.monotonic() + _LIMIT_S
    stable_since = time.monotonic()
    while time.monotonic() - stable_since < 5.0:
        if victim.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("two workers did not share the partitions")
        if len(worker.windows.partitions) != _PARTITIONS // 2 or worker.unready():
            stable_since = time.monotonic()
        await asyncio.sleep(0.1)
    return set(range(_PARTITIONS)) - set(worker.windows.partitions)


async def _until_seen(settings: Settings, seen: asyncio.Event, user_id: str) -> None:
    topic, home = TopicNames.of(settings).behaviours, partition_of(user_id, _PARTITIONS)
    for number in itertools.count():
        event = {
            "event_id": f"probe-{number}", "user_id": user_id, "type": "click",
            "ts": T0_MS + number, "item_id": "item-00000",
        }  # fmt: skip
        message = Message(topic, home, user_id.encode(), msgspec.json.encode(event))
        await asyncio.to_thread(send, settings.kafka_bootstrap, [message])
        try:
            async with asyncio.timeout(_EVERY_S):
                await seen.wait()
            return
        except TimeoutError:
            if number * _EVERY_S > _LIMIT_S:
                raise


def _users() -> Iterator[str]:
    for number in itertools.count():
        yield f"moved-{number:07d}"


def _windows(settings: Settings, n: int) -> Iterator[Message]:
    """Give ``n`` windows: full ones under the names of other users."""
    topic = TopicNames.of(settings).windows
    full = list(full_windows(WindowLimits().max_events))
    for user_id, window in zip(itertools.islice(_users(), n), itertools.cycle(full), strict=False):
        named = msgspec.structs.replace(window, subject_id=user_id)
        home = partition_of(user_id, settings.partitions)
        yield Message(topic, home, user_id.encode(), window_to_bytes(named, 0))


async def _victim(bootstrap: str, prefix: str) -> None:
    worker, _ = stub_worker(settings_of(bootstrap, prefix, _PARTITIONS), bundle())
    await worker.start()
    await worker.failure()


def _note(what: str) -> None:
    print(f"{NAME}: {what}", file=sys.stderr)


if __name__ == "__main__":
    run_as_worker(_victim(*sys.argv[1:]))
    os._exit(1)
