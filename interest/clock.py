"""Clocks are passed in, so that tests and replays own the time."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Gives Unix time in ms.
Clock = Callable[[], int]


def system_clock() -> int:
    """Give the machine's Unix time in ms."""
    return time.time_ns() // 1_000_000
