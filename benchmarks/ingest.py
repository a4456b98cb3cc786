"""Events per second: the worker beside its peers, on the same log and broker.

    python -m benchmarks ingest [--events 400000] [--repeats 3] [--limit-s 4] [--brokers kafka]

The log lies in the topic before anybody reads, and all of one round read the same topic. The worker
is the product's own, with checkpoints, and micro-batches whose encoder and vector store are stubs.
Its peers keep the last 50 events of a user in their own state, with its changelog or recovery store
switched on; the bare loop decodes and appends to lists; the bare fetch does not even decode. All
windows are full from the first event on. Kinds take turns, each in a process of its own.

The targets are held by the stricter of two rates: until all that was read is in windows, encoded
and committed, a last checkpoint included. A peer with durable state is held by the same; Faust
and the bare loop by the rate of reading alone, as they do not say when they have committed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import ingest_peers, ingest_runners
from benchmarks.event_log import preload
from benchmarks.ingest_job import Job, Run
from benchmarks.peers import environment, peers_python
from benchmarks.results import Measurement, Report
from benchmarks.servers import BROKERS, Servers, Unavailable, servers
from benchmarks.stubs import bundle, settings_of
from streams.topics import TopicNames

NAME: Final = "ingest"
KINDS: Final = (*ingest_runners.KINDS, *ingest_peers.KINDS)
#: The goals that compare, and with what.
_AGAINST: Final = {
    "over faust": "faust table",
    "over quix": "quix streams",
    "over bytewax": "bytewax",
    "over bare": "bare loop",
}
_PARTITIONS: Final = 4
#: A child also joins a group, and recovers the windows.
_PATIENCE_S: Final = 90.0

#: What the runs of a kind were, or why there are none.
Runs = dict[str, list[Run] | str]
Rates = Callable[[Sequence[Run]], list[float]]


def run(arguments: Sequence[str]) -> Report:
    """Measure over every broker."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=4.0, help="of one run, at most")
    parser.add_argument("--brokers", nargs="+", choices=BROKERS, default=BROKERS)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args(arguments)
    peers = _peers()
    measurements: list[Measurement] = []
    values: dict[str, float | str] = {}
    for broker in options.brokers:
        try:
            with servers(broker) as running:
                runs = _rounds(running, options, peers)
        except Unavailable as error:
            runs = dict.fromkeys(options.kinds, str(error))
        measurements += _rows(broker, runs)
        if broker == "kafka":  # the targets are for Apache Kafka
            values = _values(runs)
    return Report(tuple(measurements), values)


def _peers() -> Path | str:
    try:
        return peers_python()
    except Unavailable as error:
        return str(error)


def _rounds(running: Servers, options: argparse.Namespace, peers: Path | str) -> Runs:
    taken: defaultdict[str, list[Run]] = defaultdict(list)
    absent: dict[str, str] = {}
    for repeat in range(options.repeats):
        prefix = f"bench-{uuid.uuid4().hex[:8]}-"
        settings = settings_of(running.kafka_bootstrap, prefix, _PARTITIONS)
        asyncio.run(preload(settings, bundle(), options.events))
        job = Job(
            running.kafka_bootstrap, prefix, TopicNames.of(settings).behaviours,
            options.events, _PARTITIONS, options.limit_s,
        )  # fmt: skip
        for kind in options.kinds:
            if kind in absent:
                continue
            try:
                done = _read(kind, job, peers)
            except Unavailable as error:
                absent[kind] = str(error)
                _note(f"{running.broker}, {kind}: {error}")
                continue
            taken[kind].append(done)
            rate = done.n_events / done.wall_s
            _note(f"{running.broker}, {kind}, {repeat + 1} of {options.repeats}: {rate:,.0f}/s")
    return {kind: absent.get(kind) or taken[kind] for kind in options.kinds}


def _read(kind: str, job: Job, peers: Path | str) -> Run:
    """Let a process of its own read the log.

    Raises:
        Unavailable: a peer that is not installed, or does not get along with this broker.
    """
    of_peer = kind in ingest_peers.KINDS
    if of_peer and isinstance(peers, str):
        raise Unavailable(peers)
    command = (
        [str(peers), "-m", "benchmarks.ingest_peers"]
        if of_peer
        else [sys.executable, "-m", "benchmarks.ingest_runners"]
    )
    try:
        done = subprocess.run(
            [*command, kind, msgspec.json.encode(job).decode()],
            env=environment() if of_peer else None, timeout=job.limit_s + _PATIENCE_S,
            check=True, capture_output=True,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode(errors="replace").strip()
        if not of_peer:
            raise RuntimeError(f"{kind}: {error}\n{said[-2000:]}") from error
        # It may lack what this broker lacks: its row says so, and the others' stand.
        raise Unavailable(
            f"{kind} on this broker: {(said.splitlines() or [''])[-1][:200]}"
        ) from error
    return msgspec.json.decode(done.stdout, type=Run)


def _rates(runs: Sequence[Run]) -> list[float]:
    return [run.n_events / run.wall_s for run in runs]


def _cpu_us(runs: Sequence[Run]) -> list[float]:
    return [run.cpu_s / run.n_events * 1e6 for run in runs]


def _rows(broker: str, runs: Runs) -> list[Measurement]:
    rows: list[Measurement] = []
    for kind, of_kind in runs.items():
        if isinstance(of_kind, str):
            rows.append(_row(broker, kind, "rate", skipped=of_kind))
            continue
        rates, cpu_us = _rates(of_kind), _cpu_us(of_kind)
        rows.append(_row(broker, kind, "rate", rates, "events/s", _faster(runs, kind)))
        rows.append(_row(broker, kind, "processor time", cpu_us, "µs/event", _leaner(runs, kind)))
        if any(run.committed_s for run in of_kind):
            ratio = _faster(runs, kind, _committed)
            name = "rate to the last commit"
            rows.append(_row(broker, kind, name, _committed(of_kind), "events/s", ratio))
        if any(run.n_vectors for run in of_kind):
            vectors = [run.n_vectors / run.wall_s for run in of_kind]
            rows.append(_row(broker, kind, "vectors meanwhile", vectors, "vectors/s"))
    return rows


def _committed(runs: Sequence[Run]) -> list[float]:
    """Give the rates until the last commit, of reading alone where that is not known."""
    return [run.n_events / (run.committed_s or run.wall_s) for run in runs]


def _faster(runs: Runs, peer: str, rates: Rates = _rates) -> float | None:
    """Say how many times the worker's rate is a peer's; None without both."""
    ours, theirs = runs.get("worker", ""), runs.get(peer, "")
    if peer == "worker" or isinstance(ours, str) or isinstance(theirs, str):
        return None
    return statistics.median(rates(ours)) / statistics.median(rates(theirs))


def _leaner(runs: Runs, peer: str) -> float | None:
    """Say how many times a peer's processor time is the worker's; None without both."""
    ours, theirs = runs.get("worker", ""), runs.get(peer, "")
    if peer == "worker" or isinstance(ours, str) or isinstance(theirs, str):
        return None
    return statistics.median(_cpu_us(theirs)) / statistics.median(_cpu_us(ours))


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
        ratio_to="in favour of the worker" if ratio is not None else "",
        skipped=skipped,
    )


def _values(runs: Runs) -> dict[str, float | str]:
    ours = runs.get("worker", "not run")
    values: dict[str, float | str] = {
        "rate": ours if isinstance(ours, str) else statistics.median(_committed(ours))
    }
    for key, peer in _AGAINST.items():
        theirs = runs.get(peer, "not run")
        ratio = _faster(runs, peer, _committed)
        why = next((told for told in (ours, theirs) if isinstance(told, str)), "")
        values[key] = why if ratio is None else ratio
    return values


def _note(what: str) -> None:
    print(f"{NAME}: {what}", file=sys.stderr, flush=True)
