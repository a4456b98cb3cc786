"""Run the benchmarks: ``python -m benchmarks [NAME] [--device cuda] [--option value]``.

``report`` measures nothing: it renders README.md, docs/scaling.md and the plot from the results.
Without a name, all of them, and the table of targets at the end. Rows and targets go into
``benchmarks/results.json``; a benchmark that runs again replaces only its own. What one can be told
(size, repetitions) is shown by ``python -m benchmarks NAME --help``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.results import RESULTS, load
from benchmarks.suite import BENCHMARKS, run_all, run_one


def main(arguments: Sequence[str]) -> int:
    """Run one or all; exit code 2 for a name that is none, 1 when one failed."""
    if arguments and arguments[0] in {"-h", "--help"}:
        print(__doc__)
        for name, benchmark in BENCHMARKS.items():
            print(f"  {name:<12} {benchmark.what}, about {benchmark.minutes:g} min")
        return 0
    if arguments and arguments[0] == "report":
        from benchmarks.report import main as report

        return report()
    names = [argument for argument in arguments[:1] if not argument.startswith("-")]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="")
    told, others = parser.parse_known_args(arguments[len(names) :])
    device = "" if told.device == "cpu" else told.device
    if not names:
        if others:
            parser.error(f"without a name there are no options {' '.join(others)}")
        code = run_all(device=device)
    elif names[0] not in BENCHMARKS:
        parser.error(f"no benchmark {names[0]!r}; there are: {', '.join(BENCHMARKS)}")
    elif device and not BENCHMARKS[names[0]].devices:
        parser.error(f"{names[0]} does not ask for a device")
    else:
        code = run_one(names[0], others, device=device)
    print(f"written to {RESULTS.parent.name}/{RESULTS.name}{_plot()}")
    return code


def _plot() -> str:
    from benchmarks.plot import PLOT, draw

    try:
        draw(load(), PLOT)
    except ModuleNotFoundError as error:
        return f"; no plot: {error.name} is not installed"
    return f", the plot to {PLOT.parent.name}/{PLOT.name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
