"""Where a worker spends its processor time in the run that ``benchmarks.ingest`` measures.

    python -m benchmarks.ingest_profile [--broker kafka] [--events 100000]

Reads the clock of the thread around the calls of each stage, which weighs all of them alike; a
profiler would weigh small functions too high. Recovery is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import ingest_runners
from benchmarks.event_log import preload
from benchmarks.ingest_job import Clock, Job, Run
from benchmarks.ingest_runners import worker
from benchmarks.servers import BROKERS, servers
from benchmarks.stubs import bundle, run_as_worker, settings_of
from streams.dirty import DirtyUsers
from streams.held_windows import HeldWindows
from streams.ingest import Ingest
from streams.popular import PopularItems
from streams.topics import TopicNames
from streams.upserts import Upserts
from streams.window_records import WindowRecords

_PARTITIONS: Final = 4
_PREFIX: Final = "profile-"
_LIMIT_S: Final = 60.0
#: Stage → the method whose calls it is; indented ones are part of the one above.
STAGES: Final[dict[str, tuple[type, str]]] = {
    "decode, check, sort by user": (Ingest, "_read"),
    "  mark dirty": (DirtyUsers, "mark"),
    "fold": (HeldWindows, "fold"),
    "serialise": (WindowRecords, "window"),
    "popular items": (PopularItems, "top"),
    "the record of a vector": (Upserts, "_update"),
    "settle a vector": (Upserts, "_note"),
}


class _Spent(NamedTuple):
    """Seconds of processor time: of the process, of its main thread, and by stage."""

    process_s: float
    main_s: float
    by_stage: Counter[str]
    calls: Counter[str]


class _Meter(Clock):
    """Takes the place of the runners' clock, and with it stops counting when the log is read."""

    by_stage: ClassVar[Counter[str]] = Counter()
    calls: ClassVar[Counter[str]] = Counter()
    spent: ClassVar[_Spent]

    def __init__(self) -> None:
        super().__init__()
        self.by_stage.clear()
        self.calls.clear()
        self._main_s = time.thread_time()

    def run(self, n_events: int, **fields: Any) -> Run:
        """Stop the clock."""
        run = super().run(n_events, **fields)
        type(self).spent = _Spent(
            run.cpu_s, time.thread_time() - self._main_s, self.by_stage.copy(), self.calls.copy()
        )
        return run


def main() -> None:
    """Measure one run and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--broker", choices=BROKERS, default="kafka")
    parser.add_argument("--events", type=int, default=100_000)
    options = parser.parse_args()
    for stage, (owner, name) in STAGES.items():
        setattr(owner, name, _timed(stage, getattr(owner, name)))
    vars(ingest_runners)["Clock"] = _Meter
    with servers(options.broker) as running:
        settings = settings_of(running.kafka_bootstrap, _PREFIX, _PARTITIONS)
        asyncio.run(preload(settings, bundle(), options.events))
        topic = TopicNames.of(settings).behaviours
        job = Job(running.kafka_bootstrap, _PREFIX, topic, options.events, _PARTITIONS, _LIMIT_S)
        run = run_as_worker(worker(job))
    Console(highlight=False).print(_table(run, _Meter.spent))


def _timed(stage: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.thread_time()
        try:
            return method(*args, **kwargs)
        finally:
            _Meter.by_stage[stage] += time.thread_time() - began  # type: ignore[assignment]
            _Meter.calls[stage] += 1

    return timed


def _table(run: Run, spent: _Spent) -> Table:
    table = Table("stage", "µs/event", "calls", "µs/call", title=f"{run.n_events:,} events")
    for stage in STAGES:
        seconds, calls = spent.by_stage[stage], spent.calls[stage]
        each = f"{seconds / calls * 1e6:.1f}" if calls else ""
        table.add_row(stage, f"{seconds / run.n_events * 1e6:.2f}", f"{calls:,}", each)
    table.add_row("main thread", f"{spent.main_s / run.n_events * 1e6:.2f}", "", "")
    table.add_row("all threads", f"{spent.process_s / run.n_events * 1e6:.2f}", "", "")
    return table


if __name__ == "__main__":
    main()
