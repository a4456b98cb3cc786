"""The model on paper finds its constants among the results."""

from __future__ import annotations

from benchmarks.results import load
from benchmarks.scaling import constants, plan_table


def test_every_constant_of_the_model_is_measured_or_assumed() -> None:
    model = constants(load())  # raises where a measurement has another name
    assert model.ingest.value > 0
    assert "cores for encoding" in plan_table(model)
