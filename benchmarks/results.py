"""What a benchmark measured: rows for the table, values for the targets, and ``results.json``.

Standard library only, as :mod:`benchmarks.targets`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import Machine, commit, this_machine
from benchmarks.targets import GOALS, Target, complete, judged, labelled

RESULTS: Final = Path(__file__).parent / "results.json"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number. ``subject`` is what was measured, ``name`` which property of it.

    ``value`` is the median of ``runs``; None where it was skipped, and ``skipped`` says why.
    ``ratio`` compares with ``ratio_to``, greater is always better.
    """

    benchmark: str
    subject: str
    name: str
    unit: str
    value: float | None = None
    runs: tuple[float, ...] = ()
    ratio: float | None = None
    ratio_to: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class Report:
    """What one benchmark gives.

    Args:
        measurements: rows of the table.
        values: key of a goal in ``benchmarks.targets.GOALS`` → value, or a text that says why
            there is none. A goal that is not named counts as not measured.
    """

    measurements: tuple[Measurement, ...]
    values: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ran:
    """One run of one benchmark: what of, and how long it took."""

    commit: str
    load: float
    seconds: float


@dataclass
class Results:
    """The file ``results.json``; ``machine`` and ``commit`` are those of the last run."""

    machine: Machine
    commit: str
    measurements: list[Measurement]
    targets: list[Target]
    ran: dict[str, Ran] = field(default_factory=dict)

    def of(self, benchmark: str) -> list[Measurement]:
        """Give the rows of one benchmark."""
        return [row for row in self.measurements if row.benchmark == benchmark]


def load(path: Path = RESULTS) -> Results:
    """Read the file; without one there are no results.

    Raises:
        TypeError, ValueError: it was written by another version; remove it.
    """
    if not path.exists():
        return Results(this_machine(), commit(), [], complete([]))
    held = json.loads(path.read_text())
    return Results(
        machine=Machine(**held["machine"]),
        commit=held["commit"],
        measurements=[
            Measurement(**{**row, "runs": tuple(row.get("runs", ()))})
            for row in held["measurements"]
        ],
        targets=complete(Target(**target) for target in held["targets"]),
        ran={name: Ran(**ran) for name, ran in held.get("ran", {}).items()},
    )


def merge(
    path: Path, benchmark: str, report: Report, *, seconds: float, device: str = ""
) -> Results:
    """Write one report into the file in place of that benchmark's rows; all others stay.

    Raises:
        KeyError: the report has a value for a goal that is none.
    """
    own = labelled(benchmark, device)
    results = load(path)
    results.machine, results.commit = this_machine(), commit()
    results.measurements = [row for row in results.measurements if row.benchmark != own]
    results.measurements += [dataclasses.replace(row, benchmark=own) for row in report.measurements]
    others = [target for target in results.targets if target.benchmark != own]
    results.targets = complete([*others, *judged(benchmark, report.values, device)])
    results.ran[own] = Ran(results.commit, results.machine.load, round(seconds, 1))
    path.write_text(json.dumps(_plain(results), indent=1, ensure_ascii=False) + "\n")
    return results


def failed(benchmark: str, why: str) -> Report:
    """Give what stands in the place of a benchmark's rows when it failed."""
    text = f"failed: {why}"
    row = Measurement(benchmark=benchmark, subject=benchmark, name="", unit="", skipped=text)
    keys: Iterable[str] = (goal.key for goal in GOALS if goal.benchmark == benchmark)
    return Report((row,), dict.fromkeys(keys, text))


def _plain(results: Results) -> dict[str, Any]:
    plain = dataclasses.asdict(results)
    plain["measurements"] = [_short(row) for row in results.measurements]
    plain["targets"] = [
        {k: v for k, v in target.items() if k != "skipped" or v} for target in plain["targets"]
    ]
    return plain


def _short(row: Measurement) -> dict[str, Any]:
    """Leave out what is as it is by default."""
    plain = dataclasses.asdict(row)
    return {f.name: plain[f.name] for f in dataclasses.fields(row) if plain[f.name] != f.default}
