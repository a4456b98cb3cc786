"""Events per second: the worker beside plain Faust and a bare loop, on the same log and broker.

    python -m benchmarks ingest [--events 100000] [--repeats 3] [--limit-s 6]

The log lies in the topic before anybody reads. The worker is the product's own, with windows that
are full from the start, checkpoints, and micro-batches whose encoder and vector store are stubs.
The Faust agent keeps the last 50 item ids of a user in a table with a changelog; the bare loop
decodes and appends to a list; the bare fetch does not even decode. Kinds take turns, and each
run has topics and a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from benchmarks.event_log import preload
from benchmarks.ingest_runners import KINDS, Run
from benchmarks.results import Measurement, Report
from benchmarks.servers import BROKERS, Servers, Unavailable, servers
from benchmarks.stubs import bundle, settings_of

NAME: Final = "ingest"
_PARTITIONS: Final = 4
#: A child also joins a group, and recovers the windows.
_PATIENCE_S: Final = 90.0


def run(arguments: Sequence[str]) -> Report:
    """Measure over every broker."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=6.0, help="of one run, at most")
    parser.add_argument("--brokers", nargs="+", choices=BROKERS, default=BROKERS)
    options = parser.parse_args(arguments)
    measurements: list[Measurement] = []
    values: dict[str, float | str] = {}
    for broker in options.brokers:
        try:
            with servers(broker) as running:
                runs = _alternate(running, options.events, options.repeats, options.limit_s)
        except Unavailable as error:
            measurements += [_row(broker, kind, "rate", skipped=str(error)) for kind in KINDS]
            continue
        measurements += _rows(broker, runs)
        if broker == "kafka":
            values = _values(runs)
    return Report(tuple(measurements), values)


def _alternate(
    running: Servers, n_events: int, repeats: int, limit_s: float
) -> dict[str, list[Run]]:
    runs: defaultdict[str, list[Run]] = defaultdict(list)
    for repeat in range(repeats):
        for kind in KINDS:
            print(f"{NAME}: {running.broker}, {kind}, {repeat + 1} of {repeats}", file=sys.stderr)
            prefix = f"bench-{uuid.uuid4().hex[:8]}-"
            settings = settings_of(running.kafka_bootstrap, prefix, _PARTITIONS)
            asyncio.run(preload(settings, bundle(), n_events))
            command = [
                sys.executable, "-m", "benchmarks.ingest_runners", kind, running.kafka_bootstrap,
                prefix, str(n_events), str(_PARTITIONS), str(limit_s),
            ]  # fmt: skip
            done = subprocess.run(
                command, stdout=subprocess.PIPE, check=True, timeout=limit_s + _PATIENCE_S
            )
            runs[kind].append(msgspec.json.decode(done.stdout, type=Run))
    return runs


def _rates(runs: Sequence[Run]) -> list[float]:
    return [run.n_events / run.wall_s for run in runs]


def _cpu_us(runs: Sequence[Run]) -> list[float]:
    return [run.cpu_s / run.n_events * 1e6 for run in runs]


def _rows(broker: str, runs: dict[str, list[Run]]) -> list[Measurement]:
    rows: list[Measurement] = []
    for kind, of_kind in runs.items():
        rates, cpu_us = _rates(of_kind), _cpu_us(of_kind)
        peer = None if kind == "worker" else kind
        rows.append(_row(broker, kind, "rate", rates, "events/s", _faster(runs, peer)))
        rows.append(_row(broker, kind, "processor time", cpu_us, "µs/event", _leaner(runs, peer)))
    worker = runs["worker"]
    committed = [run.n_events / run.committed_s for run in worker]
    vectors = [run.n_vectors / run.wall_s for run in worker]
    rows.append(_row(broker, "worker", "rate to the last commit", committed, "events/s"))
    rows.append(_row(broker, "worker", "vectors meanwhile", vectors, "vectors/s"))
    return rows


def _faster(runs: dict[str, list[Run]], peer: str | None) -> float | None:
    """Say how many times the worker's rate is a peer's."""
    if peer is None:
        return None
    return statistics.median(_rates(runs["worker"])) / statistics.median(_rates(runs[peer]))


def _leaner(runs: dict[str, list[Run]], peer: str | None) -> float | None:
    """Say how many times a peer's processor time is the worker's."""
    if peer is None:
        return None
    return statistics.median(_cpu_us(runs[peer])) / statistics.median(_cpu_us(runs["worker"]))


def _row(
    broker: str,
    kind: str,
    name: str,
    values: Sequence[float] = (),
    unit: str = "",
    ratio: float | None = None,
    skipped: str = "",
) -> Measurement:
    return Measurement(
        benchmark=NAME,
        subject=f"{broker}: {kind}",
        name=name,
        unit=unit,
        value=statistics.median(values) if values else None,
        runs=tuple(values),
        ratio=ratio,
        ratio_to="for the worker" if ratio is not None else "",
        skipped=skipped,
    )


def _values(runs: dict[str, list[Run]]) -> dict[str, float | str]:
    return {
        "rate": statistics.median(_rates(runs["worker"])),
        "over faust": _faster(runs, "faust table") or 0.0,
        "over bare": _faster(runs, "bare loop") or 0.0,
    }
