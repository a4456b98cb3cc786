"""What is done to a full window costs when it is not in the processor's cache, as in a worker.

    python -m benchmarks.window_costs

Goes once over 10,000 windows of 50 events for each row, in a random order, and prints µs a call.
The column beside it does the same to one window again and again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.event_log import N_USERS, events, full_windows
from interest.event import decode_event
from interest.recent import recent_of
from interest.window import BehaviourWindow, WindowLimits, fold, window_from_bytes, window_to_bytes
from streams.popular import PopularItems


def main() -> None:
    """Print the table."""
    limits = WindowLimits()
    windows = [
        # Through bytes, so that no two windows share a text.
        window_from_bytes(window_to_bytes(window, 0))[0]
        for window in full_windows(limits.max_events)
    ]
    random.Random(0).shuffle(windows)
    new = [decode_event(raw) for _, raw in events(N_USERS)]
    later = dict(zip((window.subject_id for window in windows), new, strict=True))
    popular = PopularItems()
    for window in windows:
        popular.replace((), window.events)
    calls: dict[str, Callable[[BehaviourWindow], Any]] = {
        "fold one event": lambda w: fold(w, [later[w.subject_id]], limits),
        "  the set of its event ids": lambda w: {event.event_id for event in w.events},
        "  its newest event alone": lambda w: w.events[-1].event_id,
        "recent behaviours": recent_of,
        "its item ids": lambda w: w.item_ids,
        "popular items": lambda w: popular.replace(w.events, w.events),
        "serialise": lambda w: window_to_bytes(w, 0),
    }
    table = Table("what", "µs, cold", "µs, hot")
    for name, call in calls.items():
        cold, hot = _us(call, windows), _us(call, windows[:1] * len(windows))
        table.add_row(name, f"{cold:.1f}", f"{hot:.1f}")
    Console(highlight=False).print(table)


def _us(call: Callable[[BehaviourWindow], Any], windows: Sequence[BehaviourWindow]) -> float:
    began = time.perf_counter()
    for window in windows:
        call(window)
    return (time.perf_counter() - began) / len(windows) * 1e6


if __name__ == "__main__":
    main()
