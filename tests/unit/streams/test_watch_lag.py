"""What a worker reports of itself while it waits for a service."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from interest import metrics as m
from interest.metrics import NoMetrics
from streams.dirty import DirtyUsers
from streams.progress import Progress
from streams.watchers import watch_lag


class Seen(NoMetrics):
    """Keeps gauges, and says when one was set."""

    def __init__(self) -> None:
        self.gauges: dict[str, float] = {}
        self.changed = asyncio.Event()

    def set(self, name: str, value: float, label: str = "") -> None:
        """Keep it."""
        self.gauges[name] = value
        self.changed.set()


class NoBroker:
    async def by_topic(self) -> dict[str, int]:
        raise AssertionError("a worker that is not ready must not be asked for its lag")


async def test_a_worker_that_is_not_ready_still_tells_its_backlog_and_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis is away: no batch ends, so nobody else would say that users wait."""
    monkeypatch.setattr("streams.watchers._LAG_EVERY_S", 0)
    metrics, dirty, lag = Seen(), DirtyUsers(), NoBroker()
    reporting: Any = watch_lag(lag, lambda: ["redis: away"], dirty, Progress(), metrics)  # type: ignore[arg-type]
    task = asyncio.create_task(reporting)

    async def waiting(n: int) -> None:
        while metrics.gauges.get(m.DIRTY) != n:
            metrics.changed.clear()
            await metrics.changed.wait()

    try:
        await asyncio.wait_for(waiting(0), 5)
        dirty.mark("u", 0, None)
        await asyncio.wait_for(waiting(1), 5)
    finally:
        task.cancel()
    assert metrics.gauges[m.MEMORY] > 0
    assert metrics.gauges[m.UNCOMMITTED] == 0
    assert m.LAG not in metrics.gauges
