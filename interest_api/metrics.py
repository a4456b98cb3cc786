"""The port ``Metrics`` over prometheus_client, in a registry of its own."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from interest.metrics import METRICS, MetricSpec

_Metric = Counter | Gauge | Histogram


class PrometheusMetrics:
    """Every metric of ``interest/metrics.py``, and CPU, memory and files of the process.

    Safe from any thread. A name, or the kind a name is used as, that is not in the list is a
    programming error and raises.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._metrics = {spec.name: _create(spec, self.registry) for spec in METRICS}
        # labels() locks and hashes; the hot path asks for the same few children again and again.
        self._children: dict[tuple[str, str], _Metric] = {
            (spec.name, ""): self._metrics[spec.name] for spec in METRICS if not spec.label
        }

    def count(self, name: str, n: float = 1, label: str = "") -> None:
        """Add to a counter."""
        child = self._child(name, label)
        if not isinstance(child, Counter):
            raise TypeError(f"{name} is no counter")
        child.inc(n)

    def observe(self, name: str, value: float, label: str = "") -> None:
        """Add one value to a distribution."""
        self._histogram(name, label).observe(value)

    def observe_many(self, name: str, values: Sequence[float], label: str = "") -> None:
        """Add values to a distribution in one call."""
        histogram = self._histogram(name, label)
        for value in values:
            histogram.observe(value)

    def set(self, name: str, value: float, label: str = "") -> None:
        """Set a gauge."""
        child = self._child(name, label)
        if not isinstance(child, Gauge):
            raise TypeError(f"{name} is no gauge")
        child.set(value)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Give the exposition text and its content type, for an ``Accept`` header."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _histogram(self, name: str, label: str) -> Histogram:
        child = self._child(name, label)
        if not isinstance(child, Histogram):
            raise TypeError(f"{name} is no histogram")
        return child

    def _child(self, name: str, label: str) -> _Metric:
        child = self._children.get((name, label))
        if child is None:
            child = self._children[name, label] = self._metrics[name].labels(label)
        return child


def _create(spec: MetricSpec, registry: CollectorRegistry) -> _Metric:
    labels = (spec.label,) if spec.label else ()
    match spec.kind:
        case "counter":
            # prometheus_client takes the name with or without _total and exposes it with.
            return Counter(spec.name, spec.help, labels, registry=registry)
        case "gauge":
            return Gauge(spec.name, spec.help, labels, registry=registry)
        case "histogram":
            return Histogram(spec.name, spec.help, labels, registry=registry, buckets=spec.buckets)
