"""The table of ``quality.json`` for the README. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.tables import markdown

QUALITY: Final = Path(__file__).parent / "quality.json"


class Goal(NamedTuple):
    """The least that a row is meant to reach on Amazon Beauty."""

    recall: float
    ndcg: float
    untied_ndcg: float


GOALS: Final = {
    "one-vector": Goal(0.105, 0.060, 0.039),
    "system": Goal(0.122, 0.073, 0.045),
    "zero-shot": Goal(0.072, 0.044, 0.026),
    "zero-shot-sparse": Goal(0.080, 0.049, 0.030),
}
_FIGURES: Final = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "untied_ndcg@10")


def quality_table(path: Path = QUALITY) -> str:
    """Give every row as Markdown, beside what it is meant to reach, and where it is from."""
    if not path.exists():
        return "Not measured yet."
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        (
            row["name"],
            *(_figure(row[name]) for name in _FIGURES),
            str(len(row["seeds"]) or "–"),
            f"{row['minutes']:g}" if row["seeds"] else "–",
            _goal(row),
        )
        for row in found["rows"]
    ]
    head = ("row", "R@5", "N@5", "R@10", "N@10", "untied N@10", "seeds", "minutes", "goal")
    at = found["machine"]
    where = f"{at['cores']} × {at['cpu']}, Python {at['python']}; commit {found['commit']}."
    return f"{markdown(head, lines)}\n\n{found['targets']['all']:,} targets; {where}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}".removeprefix("0")


def _goal(row: dict[str, Any]) -> str:
    goal = GOALS.get(row["name"])
    if goal is None or row["untied_ndcg@10"] is None:
        return ""
    reached = (
        row["recall@10"] >= goal.recall
        and row["ndcg@10"] >= goal.ndcg
        and row["untied_ndcg@10"] >= goal.untied_ndcg
    )
    wanted = " / ".join(f"{value:.3f}".removeprefix("0") for value in goal)
    return f"{wanted}: {'met' if reached else '**missed**'}"
