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
from interest.fold import Change, change, fold
from interest.item_table import ItemTable
from interest.recent import recent_of
from interest.window import BehaviourWindow, WindowLimits
from interest.window_bytes import window_from_bytes, window_to_bytes
from streams.popular import PopularItems


def main() -> None:
    """Print the table."""
    limits = WindowLimits()
    items = ItemTable()
    windows = [
        # Through bytes, so that no two windows share a text.
        window_from_bytes(window_to_bytes(window, 0), items).window
        for window in full_windows(limits.max_events)
    ]
    random.Random(0).shuffle(windows)
    new = [decode_event(raw) for _, raw in events(N_USERS)]
    later = dict(zip((window.subject_id for window in windows), new, strict=True))
    popular = PopularItems(items)
    for window in windows:
        popular.add(window)
    changes: dict[str, Change] = {}
    for window in windows:
        changed = change(window, [later[window.subject_id]], limits)
        assert changed is not None
        changes[window.subject_id] = changed
    stored = {w.subject_id: window_to_bytes(w, 0) for w in windows}
    calls: dict[str, Callable[[BehaviourWindow], Any]] = {
        "fold one event": lambda w: fold(w, [later[w.subject_id]], limits),
        "recent behaviours": recent_of,
        "its item ids": lambda w: w.item_ids,
        "popular items": lambda w: popular.move(changes[w.subject_id]),
        "serialise": lambda w: window_to_bytes(w, 0),
        "read back": lambda w: window_from_bytes(stored[w.subject_id], items),
    }
    table = Table("what", "µs, cold", "µs, hot")
    for name, call in calls.items():
        cold, hot = _us(call, windows), _us(call, windows[:1] * len(windows))
        table.add_row(name, f"{cold:.1f}", f"{hot:.1f}")
    Console(highlight=False).print(table)


def _us(call: Callable[[BehaviourWindow], Any], windows: Sequence[BehaviourWindow]) -> float:
    began = time.thread_time()
    for window in windows:
        call(window)
    return (time.thread_time() - began) / len(windows) * 1e6


if __name__ == "__main__":
    main()
