"""What every reader of ``benchmarks.ingest`` is told, does per event, and answers.

Imported in the peers' own environment, too: nothing here needs more than msgspec and numpy.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from interest.event import Event

WINDOW: Final = 50

#: What a peer keeps of an event: what an encoder needs. The worker keeps the whole event.
Kept = tuple[str, int, str, str | None]

#: What a peer holds of a user from the start, so that its windows are as full as the worker's.
FULL: Final[tuple[Kept, ...]] = tuple(
    (f"10000000-000000-{i:04d}", 1_699_999_950_000 + 1000 * i, "view", f"item-{i:05d}")
    for i in range(WINDOW)
)


class Job(msgspec.Struct, frozen=True):
    """What to read, and for how long at most.

    The last three are for the worker: it reads ``n_warm`` events before the clock starts;
    ``traced`` also counts what Python allocates, which makes it slow.
    """

    bootstrap: str
    prefix: str
    topic: str
    n_events: int
    n_partitions: int
    limit_s: float
    n_warm: int = 0
    traced: bool = False


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the log; ``committed_s`` also waits for the last checkpoint.

    ``n_warm`` events were read before the clock started. ``grown_bytes`` is by how much resident
    memory grew from an idle worker to the end, and ``traced_bytes`` what Python's objects take of
    it, where that was asked.
    """

    n_events: int
    wall_s: float
    cpu_s: float
    committed_s: float = 0.0
    n_vectors: int = 0
    n_warm: int = 0
    grown_bytes: int = 0
    traced_bytes: int = 0


class Clock:
    """Wall and processor time since the first records."""

    def __init__(self) -> None:
        self.wall = time.perf_counter()
        self.cpu = time.process_time()

    def elapsed_s(self) -> float:
        """Say how long it has run."""
        return time.perf_counter() - self.wall

    def run(self, n_events: int, **fields: Any) -> Run:
        """Stop the clock."""
        return Run(
            n_events=n_events,
            wall_s=self.elapsed_s(),
            cpu_s=time.process_time() - self.cpu,
            **fields,
        )


def kept(event: Event) -> Kept:
    """Cut an event to what a peer keeps of it, in plain types that every codec takes."""
    return (event.event_id, int(event.ts), event.type.value, event.item_id)


def slid(window: list[Any] | None, event: Event) -> list[Any]:
    """Add an event in place, by order of arrival, and keep the last: a peer's whole fold."""
    window = list(FULL) if window is None else window
    window.append(kept(event))
    del window[:-WINDOW]
    return window
