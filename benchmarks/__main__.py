"""Run the benchmarks: ``python -m benchmarks [NAME] [--option value]``; without a name, all.

Prints one table and merges ``benchmarks/results.json``. What a benchmark can be told (size,
repetitions) is shown by ``python -m benchmarks NAME --help``.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.results import RESULTS, Report, Results, merge

#: Name on the command line → module, which has ``run(arguments) -> Report``.
BENCHMARKS: Final = {
    "ingest": "benchmarks.ingest",
    "freshness": "benchmarks.freshness",
    "retrieval": "benchmarks.retrieval_engines",
    "encryption": "benchmarks.encryption",
}


def main(arguments: list[str]) -> int:
    """Run one or all; exit code 2 for a name that is none."""
    # Where there is no terminal, rich would fold the table into 80 columns.
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    if arguments and arguments[0] in {"-h", "--help"}:
        out.print((__doc__ or "") + "\nNames: " + ", ".join(BENCHMARKS), markup=False)
        return 0
    if arguments and arguments[0] not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        print(f"no benchmark {arguments[0]!r}; there are: {known}", file=sys.stderr)
        return 2
    names = arguments[:1] or list(BENCHMARKS)
    for name in names:
        report: Report = importlib.import_module(BENCHMARKS[name]).run(arguments[1:])
        results = merge(RESULTS, {name: report})
        _show(out, name, results)
    out.print(f"written to {RESULTS.parent.name}/{RESULTS.name}")
    return 0


def _show(out: Console, name: str, results: Results) -> None:
    machine = results.machine
    where = f"{machine.cores} cores, load {machine.load}, commit {results.commit}"
    table = Table("what", "property", "median", "unit", "runs", "ratio", title=f"{name} ({where})")
    for column in (2, 4, 5):
        table.columns[column].justify = "right"
    for row in results.measurements:
        if row.benchmark != name:
            continue
        if row.value is None:
            table.add_row(row.subject, row.name, f"skipped: {row.skipped}", "", "", "")
            continue
        ratio = f"{row.ratio:.2f} × {row.ratio_to}".rstrip() if row.ratio is not None else ""
        spread = f"{len(row.runs)}: {_number(min(row.runs))}–{_number(max(row.runs))}" if (
            len(row.runs) > 1
        ) else ""  # fmt: skip
        table.add_row(row.subject, row.name, _number(row.value), row.unit, spread, ratio)
    out.print(table)
    targets = [target for target in results.targets if target.benchmark == name]
    if targets:
        goals = Table("target", "value", "unit", "wanted", "met")
        for t in targets:
            met = "[green]yes" if t.met else "[red]no"
            goals.add_row(t.name, _number(t.value), t.unit, t.target, met)
        out.print(goals)


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
