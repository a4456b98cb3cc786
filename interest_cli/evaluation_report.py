"""What `interest evaluate` says: a table for people, JSON and best items for programs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from interest.errors import BadInput

if TYPE_CHECKING:
    from encoder.evaluation.evaluate import Evaluation
    from interest_cli.evaluating import Evaluated

#: Columns of the table: figure, title.
_COLUMNS: Final = (
    ("recall@5", "R@5"),
    ("ndcg@5", "N@5"),
    ("recall@10", "R@10"),
    ("ndcg@10", "N@10"),
    ("recall@20", "R@20"),
    ("ndcg@20", "N@20"),
    ("untied_recall@10", "untied R@10"),
    ("untied_ndcg@10", "untied N@10"),
    ("unmasked_recall@10", "unmasked R@10"),
    ("unmasked_ndcg@10", "unmasked N@10"),
    ("held_out_recall@50", "held-out R@50"),
    ("coverage@10", "coverage@10"),
)
_COMPARED: Final = ["row", "less", "over", "difference", ""]
_NO_SLICE: Final = ("all", "untied")
_MAX_WIDTH: Final = 1_000


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """NDCG@10 of a row less that of another, with its 95% interval, over a slice of targets."""

    ours: str
    theirs: str
    over: str
    mean: float
    low: float
    high: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of an evaluation; ``rows`` as :func:`encoder.evaluation.evaluate.table` gives."""

    dataset: str
    n_users: int
    n_items: int
    n_events: int
    protocol: str
    part: str
    targets: dict[str, int]
    rows: list[dict[str, Any]]
    comparisons: list[Compared]


def report_of(evaluation: Evaluation) -> Report:
    """Reckon the figures of an evaluation."""
    from encoder.evaluation.evaluate import comparisons, slice_sizes, table

    dataset = evaluation.dataset
    return Report(
        dataset=dataset.fingerprint,
        n_users=dataset.n_users,
        n_items=dataset.n_items,
        n_events=len(dataset.items),
        protocol=evaluation.split.protocol,
        part=evaluation.part,
        targets=slice_sizes(evaluation),
        rows=table(evaluation),
        comparisons=[
            Compared(
                ours=found.ours,
                theirs=found.theirs,
                over=found.over,
                mean=found.difference.mean,
                low=found.difference.low,
                high=found.difference.high,
            )
            for found in comparisons(evaluation)
        ],
    )


def columns(report: Report) -> list[tuple[str, str]]:
    """Give the figures that this report has, with their titles."""
    return [(name, title) for name, title in _COLUMNS if any(name in row for row in report.rows)]


def number(value: float | None) -> str:
    """Write a figure; a dash where there was nothing to reckon it from."""
    return "–" if value is None else f"{value:.4f}"


def rows_and_runs(report: Report) -> list[dict[str, Any]]:
    """Give every line of the table: a row, then the runs that it is the mean of."""
    return [line for row in report.rows for line in (row, *row.get("runs", []))]


def headline(report: Report) -> str:
    """Say what was ranked, in one line."""
    return (
        f"{report.protocol}, {report.part}: {report.targets['all']:,} targets of "
        f"{report.n_users:,} users, {report.n_items:,} items all ranked"
    )


def slice_titles(report: Report) -> list[str]:
    """Name the slices with their number of targets."""
    return [f"{name} ({n:,})" for name, n in report.targets.items() if name not in _NO_SLICE]


def show(report: Report, console: Console) -> None:
    """Print the figures, the slices and how rows compare."""
    console.print(headline(report), markup=False)
    print_table(
        console,
        ["row", *(title for _, title in columns(report))],
        [
            [row["name"], *(number(row.get(name)) for name, _ in columns(report))]
            for row in rows_and_runs(report)
        ],
    )
    console.print("NDCG@10 by slice (targets)", markup=False)
    print_table(
        console,
        ["row", *slice_titles(report)],
        [[row["name"], *map(number, row["slices"].values())] for row in report.rows],
    )
    found = with_best(report)
    if found:
        console.print("difference in NDCG@10 [95%], paired bootstrap over users", markup=False)
        print_table(console, _COMPARED, compared_lines(found), figures=False)


def with_best(report: Report) -> list[Compared]:
    """Give the comparisons with the row of the highest NDCG@10; the report holds all pairs."""
    best = max(report.rows, key=lambda row: row["ndcg@10"])["name"]
    return [found for found in report.comparisons if best in (found.ours, found.theirs)]


def compared_lines(comparisons: Sequence[Compared]) -> list[list[str]]:
    """Give the cells of the comparisons: rows, targets, difference, and whether it is clear."""
    return [
        [
            found.ours,
            found.theirs,
            found.over,
            f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]",
            "" if found.low > 0 or found.high < 0 else "not clear",
        ]
        for found in comparisons
    ]


def check_plot(path: Path, option: str) -> None:
    """Return if a file with plots can be written there.

    Raises:
        BadInput: the folder is missing, or matplotlib is.
    """
    if not path.parent.is_dir():
        raise BadInput(f"{path.parent} is no folder; make it, or name another file for {option}")
    if importlib.util.find_spec("matplotlib") is None:
        raise BadInput(f"{option} needs matplotlib: pip install 'interest-updater[evaluation]'")


def write_files(report: Report, evaluated: Evaluated, folder: Path) -> None:
    """Write ``quality.json``, ``NAME.top20.npy`` of each row, and the vectors of the first bundle.

    Best items are int32 of shape (users, 20): rows of ``items.tsv``, best first, users in the order
    of ``sequences.tsv``; -1 where there is no item, or no target of that user. ``users.npy`` and
    ``items.npy`` are float32 in the same orders; zeros where there is no vector.

    Raises:
        BadInput: the folder cannot be written.
    """
    from encoder.evaluation.evaluate import best_by_user

    evaluation = evaluated.evaluation
    try:
        folder.mkdir(parents=True, exist_ok=True)
        raw = msgspec.json.format(msgspec.json.encode(report), indent=2)
        (folder / "quality.json").write_bytes(raw + b"\n")
        for name in evaluation.by_name():
            np.save(folder / f"{name}.top20.npy", best_by_user(evaluation, name))
        for first in evaluated.bundles[:1]:
            users = first.user_vectors(evaluation.dataset, evaluation.cases)
            np.save(folder / "users.npy", users)
            np.save(folder / "items.npy", first.items)
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written ({error.strerror or error}); name another for --out"
        ) from error


def print_table(
    console: Console, titles: list[str], lines: list[list[str]], *, figures: bool = True
) -> None:
    """Print a table without lines; ``figures``: all columns but the first are numbers."""
    table = Table(box=None, pad_edge=False)
    for i, title in enumerate(titles):
        table.add_column(title, justify="right" if i and figures else "left")
    for line in lines:
        table.add_row(*line)
    # As wide as it is, also where the terminal is narrower: a figure cut short is none.
    unbounded = console.options.update(max_width=_MAX_WIDTH)
    width = Measurement.get(console, unbounded, table).maximum
    wide = Console(file=console.file, width=max(console.width, width), highlight=False)
    wide.print(table)
    console.print()
