"""Metrics that a person watches in the terminal, passed on to Prometheus."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from interest import metrics as m
from interest_api.metrics import PrometheusMetrics

_SAMPLES: Final = 200_000


class Meter:
    """Counts what the demo shows, and forwards everything."""

    def __init__(self, onward: PrometheusMetrics) -> None:
        self._onward = onward
        self.totals: Counter[str] = Counter()
        #: The newest freshness samples, seconds.
        self.freshness_s: deque[float] = deque(maxlen=_SAMPLES)

    def count(self, name: str, n: float = 1, label: str = "") -> None:
        """Add to a counter."""
        self.totals[name] += int(n)
        self._onward.count(name, n, label)

    def observe(self, name: str, value: float, label: str = "") -> None:
        """Add one value to a distribution."""
        self._onward.observe(name, value, label)

    def observe_many(self, name: str, values: Sequence[float], label: str = "") -> None:
        """Add values to a distribution in one call."""
        if name == m.FRESHNESS:
            self.freshness_s.extend(values)
        self._onward.observe_many(name, values, label)

    def set(self, name: str, value: float, label: str = "") -> None:
        """Set a gauge."""
        self._onward.set(name, value, label)

    def freshness_ms(self) -> tuple[float, float, float]:
        """Give p50, p95 and p99 of the freshness in ms; zeros before the first vector."""
        if not self.freshness_s:
            return (0.0, 0.0, 0.0)
        p50, p95, p99 = np.percentile(np.array(self.freshness_s) * 1000, [50, 95, 99])
        return (float(p50), float(p95), float(p99))
