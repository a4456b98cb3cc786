"""The plot of the README: the worker beside its peers, and how far each target is reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.results import Results
from benchmarks.tables import number
from benchmarks.targets import GOALS

PLOT: Final = Path(__file__).parent.parent / "docs" / "benchmarks.svg"
_OURS: Final = "#1f6f8b"
_OTHERS: Final = "#b5bec6"
_MISSED: Final = "#c8553d"
#: As they are called in the results, and in the plot.
_KINDS: Final = {
    "faust table": "Faust, table",
    "faust nothing": "Faust, nothing done",
    "quix streams": "Quix Streams",
    "bytewax": "Bytewax",
    "worker": "this worker",
    "bare loop": "bare loop (no state kept)",
}


def draw(results: Results, path: Path) -> None:
    """Write the plot as SVG; the same results give the same file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.hashsalt": "interest", "font.size": 9, "svg.fonttype": "none"})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6), width_ratios=(1, 1.25))
    _peers(left, results)
    _targets(right, results)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def peers(results: Results) -> dict[str, float]:
    """Give the events/s of each kind on Apache Kafka, or on the embedded broker without it."""
    for broker in ("kafka", "embedded"):
        found = {
            row.subject.removeprefix(f"{broker}: "): row.value
            for row in results.of("ingest")
            if row.name == "rate" and row.value is not None and row.subject.startswith(broker)
        }
        if found:
            return {label: found[kind] for kind, label in _KINDS.items() if kind in found}
    return {}


def reached(results: Results) -> dict[str, float]:
    """Say of each target that was measured how far it is reached: 1 is met, more is better."""
    goals = {goal.name: goal for goal in GOALS}
    found: dict[str, float] = {}
    for target in results.targets:
        goal = goals.get(target.name)
        if goal is not None and target.value is not None and target.value > 0:
            share = target.value / goal.bound
            found[target.name] = share if goal.sign == "≥" else 1 / share
    return found


def _peers(axes: Any, results: Results) -> None:
    rates = peers(results)
    colours = [_OURS if label == _KINDS["worker"] else _OTHERS for label in rates]
    bars = axes.barh(list(rates), list(rates.values()), color=colours)
    axes.bar_label(bars, [f" {number(rate)}" for rate in rates.values()])
    axes.set_title("events/s, one process, windows of 50, log scale")
    _bare(axes, list(rates.values()), 4)


def _targets(axes: Any, results: Results) -> None:
    shares = reached(results)
    met = {target.name for target in results.targets if target.met}
    names = list(reversed(shares))
    values = [shares[name] for name in names]
    axes.barh(names, values, color=[_OURS if name in met else _MISSED for name in names])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_title("reached, 1 = the target, log scale")
    _bare(axes, values, 2)


def _bare(axes: Any, values: Sequence[float], room: float) -> None:
    if values:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * room)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
