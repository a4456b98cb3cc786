"""Freshness: an event is sent → its user's vector, read from Redis by another process, shows it.

    python -m benchmarks freshness [--seconds 4] [--repeats 3]

The worker is `interest worker` in a process of its own, with the default bundle (MiniLM, decay),
10,000 users whose windows are full, and a real Redis. This process sends, and polls Redis for a
sample of the events. The clock starts before the event is handed to the producer, so its way to
the broker counts too. The maximum is the rate of vectors while the worker drains a flood until all
are readable; in a flood events of one user share a vector, so the rate of events is higher. Loads
are parts of the maximum. Its peer is a plain Faust agent that calls the same model per event, at
parts of its own maximum.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from typing import Final

import numpy as np

from benchmarks.freshness_rig import Rig, open_peer, open_rig
from benchmarks.results import Measurement, Report
from benchmarks.servers import BROKERS, Servers, Unavailable, servers

NAME: Final = "freshness"
_PEER: Final = "plain Faust agent"
_FLOOD: Final = 15_000
#: The peer takes one after another.
_PEER_FLOOD: Final = 600
_LOADS: Final = {"10% load": 0.1, "half load": 0.5, "90% load": 0.9}
_QUANTILES: Final = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def run(arguments: Sequence[str]) -> Report:
    """Measure over every broker."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of one paced run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--brokers", nargs="+", choices=BROKERS, default=BROKERS)
    options = parser.parse_args(arguments)
    measurements: list[Measurement] = []
    values: dict[str, float | str] = {}
    for broker in options.brokers:
        try:
            with servers(broker) as running:
                rows = asyncio.run(_measure(running, options))
        except Unavailable as error:
            measurements.append(
                Measurement(
                    benchmark=NAME, subject=broker, name="freshness", unit="ms", skipped=str(error)
                )
            )
            if broker == "kafka":
                values = {"p50": str(error), "p99": str(error)}
            continue
        measurements += rows
        if broker == "kafka":
            half = {row.name: row.value for row in rows if row.subject == "kafka: half load"}
            values = {name: value for name in ("p50", "p99") if (value := half[name]) is not None}
    return Report(tuple(measurements), values)


async def _measure(running: Servers, options: argparse.Namespace) -> list[Measurement]:
    broker = running.broker
    async with open_rig(running) as rig:
        _note(broker, "warming up")
        await rig.flood(_FLOOD)
        rows, maximum = await _loads(rig, broker, _FLOOD, options)
    if broker == "kafka":
        async with open_peer(running) as rig:
            _note(broker, f"{_PEER}")
            await rig.flood(_PEER_FLOOD)
            peer, peers_maximum = await _loads(rig, f"{broker}, {_PEER}", _PEER_FLOOD, options)
        rows += [*peer, _ratio(broker, maximum, peers_maximum)]
    return rows


async def _loads(
    rig: Rig, subject: str, n_flood: int, options: argparse.Namespace
) -> tuple[list[Measurement], float]:
    """Measure freshness at every load; give the maximum they are parts of, vectors/s."""
    floods = [await rig.flood(n_flood) for _ in range(options.repeats)]
    maximum = statistics.median(flood.vectors_per_s for flood in floods)
    rows = [
        _row(subject, "flood", "events", "events/s", [f.events_per_s for f in floods]),
        _row(subject, "flood", "vectors", "vectors/s", [f.vectors_per_s for f in floods]),
    ]
    for load, part in _LOADS.items():
        _note(subject, f"{load}, {part * maximum:,.0f} events/s")
        rows += await _paced(rig, subject, load, part * maximum, options)
    return rows, maximum


async def _paced(
    rig: Rig, broker: str, load: str, rate: float, options: argparse.Namespace
) -> list[Measurement]:
    taken = [
        [fresh.ms for fresh in await rig.paced(rate, options.seconds)]
        for _ in range(options.repeats)
    ]
    rows = [
        _row(broker, load, name, "ms", [float(np.percentile(ms, q)) for ms in taken])
        for name, q in _QUANTILES.items()
    ]
    sent = Measurement(
        benchmark=NAME, subject=f"{broker}: {load}", name="rate", unit="events/s", value=rate
    )
    _note(broker, f"{load}: {sum(map(len, taken))} samples")
    return [sent, *rows]


def _ratio(broker: str, maximum: float, peers: float) -> Measurement:
    return Measurement(
        benchmark=NAME, subject=f"{broker}: flood", name="vectors over the peer", unit="×",
        value=maximum / peers, ratio=maximum / peers, ratio_to=_PEER,
    )  # fmt: skip


def _row(broker: str, load: str, name: str, unit: str, values: Sequence[float]) -> Measurement:
    return Measurement(
        benchmark=NAME,
        subject=f"{broker}: {load}",
        name=name,
        unit=unit,
        value=statistics.median(values),
        runs=tuple(values),
    )


def _note(broker: str, what: str) -> None:
    print(f"{NAME}: {broker}, {what}", file=sys.stderr)
