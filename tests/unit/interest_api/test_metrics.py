"""Metrics in Prometheus' form."""

from __future__ import annotations

import pytest

from interest import metrics as names
from interest.ports import Metrics
from interest_api.metrics import PrometheusMetrics


def value(metrics: PrometheusMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("spec", names.METRICS, ids=lambda spec: spec.name)
def test_every_metric_is_exposed_under_its_own_name(
    metrics: PrometheusMetrics, spec: names.MetricSpec
) -> None:
    port: Metrics = metrics
    label = "x" if spec.label else ""
    labels = {spec.label: "x"} if spec.label else {}
    match spec.kind:
        case "counter":
            port.count(spec.name, 3, label)
            port.count(spec.name, label=label)
            assert value(metrics, spec.name, **labels) == 4
        case "gauge":
            port.set(spec.name, 7, label)
            assert value(metrics, spec.name, **labels) == 7
        case "histogram":
            port.observe(spec.name, spec.buckets[0], label)
            port.observe_many(spec.name, [spec.buckets[-1] + 1] * 2, label)
            assert value(metrics, f"{spec.name}_count", **labels) == 3
            first = f"{float(spec.buckets[0])}"
            assert value(metrics, f"{spec.name}_bucket", le=first, **labels) == 1


def test_two_processes_in_one_test_do_not_share_a_registry() -> None:
    one, other = PrometheusMetrics(), PrometheusMetrics()
    one.count(names.VECTORS)
    assert value(other, names.VECTORS) == 0


def test_a_name_or_a_use_that_is_not_in_the_list_raises(metrics: PrometheusMetrics) -> None:
    with pytest.raises(KeyError):
        metrics.count("interest_typos_total")
    with pytest.raises(TypeError):
        metrics.set(names.VECTORS, 1)
    with pytest.raises(TypeError):
        metrics.count(names.DIRTY)
    with pytest.raises(TypeError):
        metrics.observe(names.DIRTY, 1)


def test_the_process_itself_is_measured(metrics: PrometheusMetrics) -> None:
    body, _ = metrics.render()
    assert b"process_resident_memory_bytes" in body
