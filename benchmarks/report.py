"""What the documents show of the results: ``python -m benchmarks report``.

Rewrites what stands between ``<!-- NAME: … -->`` and ``<!-- /NAME -->`` in README.md,
docs/performance.md (where NAME is a benchmark) and docs/scaling.md, and draws the plot, all from
``results.json`` and ``quality.json``. Nothing is measured.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from benchmarks.plot import PLOT, draw
from benchmarks.quality_table import quality_table
from benchmarks.results import Results, load
from benchmarks.scaling import NotMeasured, constants, constants_table, plan_table
from benchmarks.suite import BENCHMARKS
from benchmarks.tables import markdown, page_of, shown, verdict

_ROOT: Final = Path(__file__).parent.parent
README: Final = _ROOT / "README.md"
PERFORMANCE: Final = _ROOT / "docs" / "performance.md"
SCALING: Final = _ROOT / "docs" / "scaling.md"


def main() -> int:
    """Render; 1 where a document wants what was not measured."""
    results = load()
    fill(README, {"targets": targets_table(results), "quality": quality_table()})
    fill(PERFORMANCE, {name: page_of(results, name) for name in shown_in(PERFORMANCE)})
    draw(results, PLOT)
    try:
        model = constants(results)
    except NotMeasured as error:
        print(f"docs/scaling.md stays as it is: {error}")
        return 1
    fill(SCALING, {"constants": constants_table(model), "plan": plan_table(model)})
    return 0


def targets_table(results: Results) -> str:
    """Give every target with its value as Markdown, and where the numbers are from."""
    rows = [
        (t.name, shown(t), t.unit, t.target, verdict(t).replace("MISSED", "**missed**"))
        for t in results.targets
    ]
    table = markdown(("what", "measured", "unit", "target", ""), rows)
    at = results.machine
    commits = ", ".join(sorted({ran.commit for ran in results.ran.values()}))
    where = f"{at.cores} × {at.cpu}, {at.memory_gib:g} GiB, Python {at.python}"
    loads = [ran.load for ran in results.ran.values()] or [at.load]
    busy = f"load average {min(loads):.0f} to {max(loads):.0f}"
    return f"{table}\n\n{where}; {busy}; commits {commits}."


def shown_in(path: Path) -> list[str]:
    """Give the benchmarks whose rows a document wants."""
    return [name for name in BENCHMARKS if f"<!-- {name}: " in path.read_text()]


def fill(path: Path, texts: dict[str, str]) -> None:
    """Put each text between its markers.

    Raises:
        ValueError: the document has no such markers.
    """
    page = path.read_text()
    for name, text in texts.items():
        begin = re.findall(rf"<!-- {name}: [^>]*-->\n", page)
        end = f"<!-- /{name} -->"
        if len(begin) != 1 or page.count(end) != 1:
            raise ValueError(f"{path.name} has no place for {name!r}, or several")
        before, _, rest = page.partition(begin[0])
        page = f"{before}{begin[0]}{text}\n{end}{rest.partition(end)[2]}"
    path.write_text(page)
