"""What a benchmark measured: rows for the table, targets, and ``results.json``."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import msgspec
import psutil

RESULTS: Final = Path(__file__).parent / "results.json"


class Measurement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One target of the project, and whether this run met it."""

    benchmark: str
    name: str
    value: float
    unit: str
    target: str
    met: bool


class Report(msgspec.Struct, frozen=True):
    """What one benchmark gives."""

    measurements: tuple[Measurement, ...]
    targets: tuple[Target, ...] = ()


class Machine(msgspec.Struct, frozen=True):
    """Where the numbers come from; ``load`` is the load average as the run began."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load: float


class Results(msgspec.Struct):
    """The file ``results.json``."""

    machine: Machine
    commit: str
    measurements: list[Measurement]
    targets: list[Target]


def at_least(
    benchmark: str, name: str, value: float | None, unit: str, least: float
) -> list[Target]:
    """Hold a value against a lower bound; no target where nothing was measured."""
    return _target(benchmark, name, value, unit, "≥", least)


def at_most(benchmark: str, name: str, value: float | None, unit: str, most: float) -> list[Target]:
    """Hold a value against an upper bound; no target where nothing was measured."""
    return _target(benchmark, name, value, unit, "≤", most)


def _target(
    benchmark: str,
    name: str,
    value: float | None,
    unit: str,
    sign: Literal["≥", "≤"],
    bound: float,
) -> list[Target]:
    if value is None:
        return []
    met = value >= bound if sign == "≥" else value <= bound
    return [
        Target(
            benchmark=benchmark, name=name, value=value, unit=unit,
            target=f"{sign} {bound:g}", met=met,
        )
    ]  # fmt: skip


def merge(path: Path, reports: dict[str, Report]) -> Results:
    """Write the reports into the file; other benchmarks' rows stay as they are."""
    results = Results(_machine(), _commit(), [], [])
    try:
        held = msgspec.json.decode(path.read_bytes(), type=Results)
    except (FileNotFoundError, msgspec.DecodeError):
        held = Results(results.machine, results.commit, [], [])
    results.measurements = _kept(held.measurements, reports)
    results.targets = [t for t in held.targets if t.benchmark not in reports]
    for report in reports.values():
        results.measurements.extend(report.measurements)
        results.targets.extend(report.targets)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    return results


def _kept(held: Iterable[Measurement], reports: dict[str, Report]) -> list[Measurement]:
    return [m for m in held if m.benchmark not in reports]


def _machine() -> Machine:
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else psutil.cpu_count(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        load=round(psutil.getloadavg()[0], 2),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str:
    """Name the commit, with ``+`` where the working tree differs from it."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    return f"{commit}+" if commit and git("status", "--porcelain", "-uno") else commit or "unknown"
