"""All benchmarks, and how one or all of them are run. Standard library only."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import tables
from benchmarks.results import RESULTS, Report, failed, load, merge
from benchmarks.targets import labelled

_ENDS_S: Final = 15.0


@dataclass(frozen=True)
class Benchmark:
    """A module with ``run(arguments) -> Report``.

    Args:
        what: said as it begins.
        minutes: about what it takes on two cores; it is stopped after five times that.
        devices: it takes ``--device``.
    """

    module: str
    what: str
    minutes: float
    devices: bool = False


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "ingest": Benchmark("benchmarks.ingest", "events/s of the worker and its peers", 7),
    "many-users": Benchmark("benchmarks.many_users", "events/s and memory by number of users", 4),
    "scale": Benchmark("benchmarks.scale", "events/s by number of workers, Redis memory", 2),
    "user-encode": Benchmark("benchmarks.user_encode", "windows to vectors", 2, devices=True),
    "item-encode": Benchmark("benchmarks.item_encode", "texts to vectors", 3, devices=True),
    "freshness": Benchmark("benchmarks.freshness", "from an event to its vector in Redis", 4),
    "overload": Benchmark("benchmarks.overload", "five times the maximum, then normal", 3),
    "recovery": Benchmark("benchmarks.recovery", "a worker is killed; until another has all", 2),
    "retrieval": Benchmark("benchmarks.retrieval", "top 10 of 100,000 items", 3),
    "encryption": Benchmark("benchmarks.encryption", "what encryption at rest costs", 1),
}


def run_one(
    name: str, arguments: Sequence[str], *, device: str = "", path: Path = RESULTS,
    registry: Mapping[str, Benchmark] = BENCHMARKS,
) -> int:  # fmt: skip
    """Run one here and write its rows; 1 when it fails, which its rows then say.

    Raises:
        SystemExit: from the benchmark, for arguments that are none; nothing was written.
    """
    benchmark = registry[name]
    passed = [*arguments, *(["--device", device] if device else [])]
    began = time.perf_counter()
    code = 0
    try:
        report: Report = importlib.import_module(benchmark.module).run(passed)
    except Exception as error:
        traceback.print_exc()
        report, code = failed(name, f"{type(error).__name__}: {error}".splitlines()[0]), 1
    seconds = time.perf_counter() - began
    results = merge(path, name, report, seconds=seconds, device=device)
    own = labelled(name, device)
    at = results.machine
    print(f"\n{own}: {seconds:.0f} s on {at.cores} cores, load {at.load}, {results.commit}")
    print(tables.measurements(results, own), flush=True)
    print("\n" + tables.targets(t for t in results.targets if t.benchmark == own), flush=True)
    return code


def run_all(
    *, device: str = "", path: Path = RESULTS, registry: Mapping[str, Benchmark] = BENCHMARKS,
    child: str = "benchmarks",
) -> int:  # fmt: skip
    """Run each in a process of its own, so that none takes another's memory, or rows, with it.

    Returns:
        1 when one of them failed; a missed target is no failure.
    """
    broken: list[str] = []
    for i, (name, benchmark) in enumerate(registry.items()):
        own_device = device if benchmark.devices else ""
        print(
            f"\n[{i + 1}/{len(registry)}] {name}: {benchmark.what}, "
            f"about {benchmark.minutes:g} min",
            flush=True,
        )
        command = [sys.executable, "-m", child, name]
        command += ["--device", own_device] if own_device else []
        began = time.perf_counter()
        why = _ran(command, benchmark.minutes * 5 * 60)
        if why is not None:
            broken.append(name)
            if why:  # else it has written itself what became of it
                seconds = time.perf_counter() - began
                merge(path, name, failed(name, why), seconds=seconds, device=own_device)
    results = load(path)
    print("\n" + tables.targets(results.targets))
    skipped = sum(target.value is None for target in results.targets)
    met = sum(target.met for target in results.targets)
    print(f"\n{met} of {len(results.targets)} targets met, {skipped} skipped")
    if broken:
        print(f"FAILED: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _ran(command: Sequence[str], limit_s: float) -> str | None:
    """Run to its end; None when all is well, else why not ("" where the child has said so)."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"not done after {limit_s:.0f} s"
    finally:
        _end(process)
    if code == 0:
        return None
    return "" if code == 1 else f"exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it has started: servers must not outlive a benchmark."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    try:
        process.wait(_ENDS_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
