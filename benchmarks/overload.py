"""Overload and recovery from it: five times the maximum for a minute, then normal.

    python -m benchmarks overload [--seconds 60] [--normal 0.5] [--broker kafka]

The rig of the freshness benchmark: `interest worker` with 10,000 users whose windows are full. The
maximum is the rate of vectors while it drains a flood. Freshness is back when events are as fresh
as before the overload again: from the first second on of which, and of all seconds after it, the
median is at most twice the median of the normal load before, or 50 ms. Vectors and memory are the
worker's own numbers (/metrics).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from benchmarks.freshness_rig import Fresh, Rig, open_rig
from benchmarks.results import Measurement, Report
from benchmarks.servers import BROKERS, Servers, Unavailable, servers
from benchmarks.worker_process import metric
from interest import metrics as m

NAME: Final = "overload"
_FLOOD: Final = 15_000
_TIMES: Final = 5
_FRESH_MS: Final = 50.0
_MIB: Final = 2**20


class _State(msgspec.Struct, frozen=True):
    """What the worker says of itself."""

    n_vectors: float
    n_dirty: float
    n_bytes: float


def run(arguments: Sequence[str]) -> Report:
    """Measure over one broker."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of the overload")
    parser.add_argument("--normal", type=float, default=0.5, help="normal load, of the maximum")
    parser.add_argument("--broker", choices=BROKERS, default="kafka")
    options = parser.parse_args(arguments)
    try:
        with servers(options.broker) as running:
            return asyncio.run(_measure(running, options))
    except Unavailable as error:
        why = str(error)
        row = Measurement(
            benchmark=NAME, subject=options.broker, name="overload", unit="ms", skipped=why
        )
        return Report((row,), dict.fromkeys(("vectors", "memory", "back"), why))


async def _measure(running: Servers, options: argparse.Namespace) -> Report:
    async with open_rig(running) as rig:
        _note("warming up")
        await rig.flood(_FLOOD)
        maximum = statistics.median([(await rig.flood(_FLOOD)).vectors_per_s for _ in range(3)])
        normal, heavy = options.normal * maximum, _TIMES * maximum
        _note(f"normal, {normal:,.0f} events/s")
        before = await rig.paced(normal, 5.0)
        _note(f"overload, {heavy:,.0f} events/s")
        states = [await _state(rig)]
        for _ in range(2):
            await rig.unseen(heavy, options.seconds / 2)
            states.append(await _state(rig))
        _note("normal again")
        after = await rig.paced(normal, 15.0)
        states.append(await _state(rig))
    usual_ms = statistics.median(fresh.ms for fresh in before)
    back_s = _back_s(after, max(_FRESH_MS, 2 * usual_ms))
    start, half, end, last = states
    rate = (end.n_vectors - start.n_vectors) / options.seconds
    rows = [
        ("maximum", "vectors/s", maximum),
        ("overload", "events/s", heavy),
        ("vectors in the overload", "vectors/s", rate),
        ("users who wait at its end", "users", end.n_dirty),
        ("memory before", "MiB", start.n_bytes / _MIB),
        ("memory after half of it", "MiB", half.n_bytes / _MIB),
        ("memory at its end", "MiB", end.n_bytes / _MIB),
        ("memory afterwards", "MiB", last.n_bytes / _MIB),
        ("freshness before, p50", "ms", usual_ms),
        ("freshness after 10 s, p50", "ms", _median_ms(after, 10.0, 15.0)),
        ("freshness is back after", "s", back_s),
    ]
    subject = f"{running.broker}: {_TIMES}× for {options.seconds:g} s"
    return Report(
        tuple(
            Measurement(benchmark=NAME, subject=subject, name=name, unit=unit, value=value)
            for name, unit, value in rows
        ),
        {"vectors": rate / maximum, "memory": end.n_bytes / half.n_bytes, "back": back_s},
    )


async def _state(rig: Rig) -> _State:
    numbers = [
        await asyncio.to_thread(metric, rig.settings, name) for name in (m.VECTORS, m.DIRTY,
                                                                         m.MEMORY)
    ]  # fmt: skip
    return _State(*numbers)


def _back_s(after: Sequence[Fresh], bound_ms: float) -> float:
    """Give the second from which on every second's median is within the bound."""
    n_seconds = int(max(fresh.sent_s for fresh in after))
    late = [s for s in range(n_seconds) if _median_ms(after, s, s + 1) > bound_ms]
    return float(late[-1] + 1) if late else 0.0


def _median_ms(taken: Sequence[Fresh], first_s: float, end_s: float) -> float:
    return statistics.median(fresh.ms for fresh in taken if first_s <= fresh.sent_s < end_s)


def _note(what: str) -> None:
    print(f"{NAME}: {what}", file=sys.stderr)
