"""Where a worker's main thread spends its time in the run that ``benchmarks.ingest`` measures.

    python -m benchmarks.ingest_profile [--broker kafka] [--events 60000]

Prints the share of each stage, from cProfile: a profiled run is two to three times slower, and
small functions weigh more in it than they do. The consumer's own thread is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.event_log import preload
from benchmarks.ingest_job import Job
from benchmarks.ingest_runners import worker
from benchmarks.servers import BROKERS, servers
from benchmarks.stubs import bundle, settings_of
from streams.topics import TopicNames

_PARTITIONS: Final = 4
_PREFIX: Final = "profile-"
_LIMIT_S: Final = 60.0
#: Stage → (file, function) whose cumulative time it is; indented ones are part of the one above.
STAGES: Final = {
    "decode, fold, mark": ("ingest.py", "_fold"),
    "  decode and check": ("ingest.py", "_decode"),
    "  fold into the window": ("window.py", "fold"),
    "  note what changed": ("windows.py", "replace"),
    "  mark dirty": ("dirty.py", "mark"),
    "micro-batches": ("micro_batches.py", "_process"),
    "  the record of a vector": ("micro_batches.py", "_update"),
    "    recent behaviours": ("recent.py", "recent_of"),
    "  settle": ("micro_batches.py", "_settle"),
    "announce on the change feed": ("micro_batches.py", "_announce"),
    "checkpoint: write windows": ("checkpoint.py", "_write"),
    "  popular items": ("popular.py", "replace"),
    "  serialise": ("window.py", "window_to_bytes"),
}
#: Callers before the clock starts.
_RECOVERY: Final = frozenset({"restore"})
_OURS: Final = frozenset({"streams", "interest"})


def main() -> None:
    """Profile one run and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--broker", choices=BROKERS, default="kafka")
    parser.add_argument("--events", type=int, default=60_000)
    options = parser.parse_args()
    profile = cProfile.Profile()
    with servers(options.broker) as running:
        settings = settings_of(running.kafka_bootstrap, _PREFIX, _PARTITIONS)
        asyncio.run(preload(settings, bundle(), options.events))
        topic = TopicNames.of(settings).behaviours
        job = Job(running.kafka_bootstrap, _PREFIX, topic, options.events, _PARTITIONS, _LIMIT_S)
        run = profile.runcall(asyncio.run, worker(job))
    seconds = _by_stage(profile)
    table = Table("stage", "µs/event", "share", title=f"{run.n_events:,} events, profiled")
    whole = sum(seconds[stage] for stage in STAGES if not stage.startswith(" "))
    for stage in STAGES:
        spent = seconds[stage]
        table.add_row(stage, f"{spent / run.n_events * 1e6:.1f}", f"{spent / whole:.0%}")
    Console(highlight=False).print(table)
    print(f"vectors: {run.n_vectors:,}; whole run with recovery not counted", file=sys.stderr)


def _by_stage(profile: cProfile.Profile) -> dict[str, float]:
    """Give the cumulative seconds of each stage, without what recovery calls."""
    seconds = dict.fromkeys(STAGES, 0.0)
    names = {where: stage for stage, where in STAGES.items()}
    # The stubs of typeshed do not know the attribute.
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (file, _, function), (_, _, _, cumulative, callers) in stats.items():
        path = Path(file)
        if path.parent.name in _OURS and (stage := names.get((path.name, function))):
            recovery = [times[3] for caller, times in callers.items() if caller[2] in _RECOVERY]
            seconds[stage] += cumulative - sum(recovery)
    return seconds


if __name__ == "__main__":
    main()
