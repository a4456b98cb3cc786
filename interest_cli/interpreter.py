"""Python as a long-running process wants it: its event loop, its switch interval, its collector."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Final

_SWITCH_S: Final = 0.001


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give uvloop where there is one: half of what a small read or upsert costs is the loop."""
    try:
        import uvloop
    except ImportError:  # it is not made for Windows
        return None
    return uvloop.new_event_loop


def tune_interpreter() -> None:
    """Set Python up for a worker, once everything is imported and loaded."""
    # The device's thread and the loop share the interpreter: with Python's default of 5 ms, each
    # answer of Redis or Kafka could wait that long while users are encoded.
    sys.setswitchinterval(_SWITCH_S)
    # Modules and the model stay for good: the collector need not look at them again and again.
    gc.collect()
    gc.freeze()
