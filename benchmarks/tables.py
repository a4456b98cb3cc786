"""Tables of results as text. Standard library only, as :mod:`benchmarks.results`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.results import Measurement, Results
from benchmarks.targets import Target

_RIGHT: Final = frozenset({"median", "runs", "value", "ratio"})


def measurements(results: Results, benchmark: str) -> str:
    """Give the rows of one benchmark."""
    head = ("what", "property", "median", "unit", "runs", "ratio")
    return _table(head, (_row(row) for row in results.of(benchmark)))


def page_of(results: Results, benchmark: str) -> str:
    """Give the rows of one benchmark for a document, and what of they are."""
    rows = [_row(row) for row in results.of(benchmark)]
    ran = results.ran.get(benchmark)
    if not rows or ran is None:
        return "Not measured yet."
    head = ("what", "property", "median", "unit", "runs", "ratio")
    return f"{markdown(head, rows)}\n\nCommit {ran.commit}, load average {ran.load:g}."


def targets(rows: Iterable[Target]) -> str:
    """Give the targets beside what was measured."""
    head = ("target", "value", "unit", "wanted", "")
    return _table(head, ((t.name, shown(t), t.unit, t.target, verdict(t)) for t in rows))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table for a document."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(target: Target) -> str:
    """Give the value, or a dash."""
    return "–" if target.value is None else number(target.value)


def verdict(target: Target) -> str:
    """Say met, missed, or why it was skipped."""
    if target.value is None and not target.met:
        return (
            target.skipped if target.skipped.startswith("failed") else f"skipped: {target.skipped}"
        )
    return "met" if target.met else "MISSED"


def number(value: float) -> str:
    """Give three digits that count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"


def _row(row: Measurement) -> tuple[str, ...]:
    if row.value is None:
        why = row.skipped if row.skipped.startswith("failed") else f"skipped: {row.skipped}"
        return (row.subject, row.name, "–", "", "", why)
    ratio = "" if row.ratio is None else f"{number(row.ratio)} × {row.ratio_to}".rstrip()
    spread = ""
    if len(row.runs) > 1:
        spread = f"{len(row.runs)}: {number(min(row.runs))}–{number(max(row.runs))}"
    return (row.subject, row.name, number(row.value), row.unit, spread, ratio)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rule = tuple("─" * width for width in widths)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in _RIGHT and line is not rule else cell.ljust(width)
            for name, cell, width in zip(head, line, widths, strict=True)
        ).rstrip()
        for line in (lines[0], rule, *lines[1:])
    )
