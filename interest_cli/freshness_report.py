"""What `interest freshness` says: a table, JSON, and a plot."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from encoder.evaluation.freshness import FIGURES, Queries
from encoder.evaluation.metrics import bootstrap_means, difference
from interest.errors import BadInput
from interest_cli.evaluation_report import number, print_table

#: Which queries count, its figure in the comparisons, and how it is called.
_VIEWS: Final = (("all", "ndcg@10", "all items"), ("new", "new_ndcg@10", "items new to the user"))
_COLOURS: Final = ("#1f6f8b", "#e0a458", "#c8553d", "#6b8f71")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A ranker with vectors of one schedule: means, and the 95% interval of NDCG@10."""

    row: str
    schedule: str
    figures: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]


class Fresher(msgspec.Struct, frozen=True, kw_only=True):
    """NDCG@10 with fresher vectors less that with staler ones, and its 95% interval."""

    row: str
    fresher: str
    staler: str
    over: str
    mean: float
    low: float
    high: float


class FreshnessReport(msgspec.Struct, frozen=True, kw_only=True):
    """All figures."""

    dataset: str
    n_queries: int
    n_users: int
    n_new: int
    lines: list[Line]
    comparisons: list[Fresher]


def report_of(
    fingerprint: str,
    asked: Queries,
    schedules: Sequence[str],
    measured: Mapping[str, NDArray[np.float64]],
) -> FreshnessReport:
    """Reckon the figures; ``measured`` holds (R, Q, 4) of each row, schedules as they are named.

    Each schedule is compared with the next, and the first with all: paired, over the same draws of
    users.
    """
    lines: list[Line] = []
    compared: list[Fresher] = []
    one_of = next(iter(measured.values()))
    has_new = ~np.isnan(one_of[0, :, FIGURES.index("new_ndcg@10")])
    for row, values in measured.items():
        intervals: list[dict[str, tuple[float, float]]] = [{} for _ in schedules]
        for over, figure, _ in _VIEWS:
            part = has_new if over == "new" else np.ones(len(has_new), np.bool_)
            if not part.any():
                continue
            gains = values[:, part, FIGURES.index(figure)].T  # (B, R)
            means = bootstrap_means(gains, asked.users[part])
            for held, column in zip(intervals, means.T, strict=True):
                low, high = np.quantile(column, (0.025, 0.975))
                held[figure] = (float(low), float(high))
            pairs = {*itertools.pairwise(range(len(schedules)))}
            pairs |= {(0, staler) for staler in range(1, len(schedules))}
            for fresher, staler in sorted(pairs):
                found = difference(gains, means, fresher, staler)
                compared.append(
                    Fresher(
                        row=row,
                        fresher=schedules[fresher],
                        staler=schedules[staler],
                        over=over,
                        mean=found.mean,
                        low=found.low,
                        high=found.high,
                    )
                )
        for name, of_schedule, held in zip(schedules, values, intervals, strict=True):
            figures = {
                figure: float(np.nanmean(column)) if not np.isnan(column).all() else None
                for figure, column in zip(FIGURES, of_schedule.T, strict=True)
            }
            lines.append(Line(row=row, schedule=name, figures=figures, intervals=held))
    return FreshnessReport(
        dataset=fingerprint,
        n_queries=len(asked.users),
        n_users=len(np.unique(asked.users)),
        n_new=int(has_new.sum()),
        lines=lines,
        comparisons=compared,
    )


def show(report: FreshnessReport, console: Console) -> None:
    """Print the figures, and what each schedule gains over staler ones."""
    console.print(
        f"{report.n_queries:,} queries of {report.n_users:,} users, {report.n_new:,} of them with "
        "an item new to the user",
        markup=False,
    )
    print_table(
        console,
        ["row", "vector", "R@10", "N@10", "new R@10", "new N@10"],
        [
            [line.row, line.schedule, *(number(line.figures[figure]) for figure in FIGURES)]
            for line in report.lines
        ],
    )
    console.print("gain in NDCG@10 [95%], paired bootstrap over users", markup=False)
    print_table(
        console,
        ["row", "vector", "less", "over", "gain", ""],
        [
            [
                one.row, one.fresher, one.staler, one.over,
                f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]",
                "" if one.low > 0 or one.high < 0 else "not clear",
            ]
            for one in report.comparisons
        ],
        figures=False,
    )  # fmt: skip


def write_json(report: FreshnessReport, path: Path) -> None:
    """Write all figures.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written ({error.strerror or error}); name another for --out"
        ) from error


def draw(report: FreshnessReport, path: Path) -> None:
    """Draw NDCG@10 by schedule as SVG; the same figures give the same file.

    Raises:
        BadInput: the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    options: Any = {"svg.hashsalt": "interest", "svg.fonttype": "none", "font.size": 9}
    with mpl.rc_context(options):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        for axes, (_, name, title) in zip(figure.subplots(1, 2), _VIEWS, strict=True):
            _panel(axes, report, name)
            axes.set_title(title)
        try:
            figure.savefig(path, format="svg", metadata={"Date": None})
        except OSError as error:
            raise BadInput(
                f"{path} cannot be written ({error.strerror or error}); name another for --plot"
            ) from error


def _panel(axes: Any, report: FreshnessReport, figure: str) -> None:
    rows = list(dict.fromkeys(line.row for line in report.lines))
    for row, colour in zip(rows, itertools.cycle(_COLOURS)):
        lines = [line for line in report.lines if line.row == row and figure in line.intervals]
        means = [line.figures[figure] or 0.0 for line in lines]
        below = [mean - line.intervals[figure][0] for mean, line in zip(means, lines, strict=True)]
        above = [line.intervals[figure][1] - mean for mean, line in zip(means, lines, strict=True)]
        names = [line.schedule for line in lines]
        axes.errorbar(names, means, [below, above], fmt="o-", color=colour, label=row, capsize=3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("age of the vector, or how often it is refreshed")
    axes.set_ylabel("NDCG@10")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False)
