"""The targets of the project, as one table; benchmarks give the values, by key.

Standard library only: the benchmark of the user encoder runs where there is torch, numpy and
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True)
class Goal:
    """One target: ``value sign bound``.

    Args:
        key: what the benchmark calls it in ``Report.values``.
        instead: key of another goal of the benchmark; one of the two suffices.
    """

    benchmark: str
    key: str
    name: str
    unit: str
    sign: Literal["≥", "≤"]
    bound: float
    instead: str = ""

    def reached(self, value: float) -> bool:
        """Hold a value against the bound; a tie is met."""
        return value >= self.bound if self.sign == "≥" else value <= self.bound


@dataclass(frozen=True, kw_only=True)
class Target:
    """What became of a goal. Where nothing was measured, ``skipped`` says why; then it is not met.

    ``benchmark`` names the device, too, where it is not the processor: ``user-encode (cuda)``.
    """

    benchmark: str
    name: str
    value: float | None
    unit: str
    target: str
    met: bool
    skipped: str = ""


GOALS: Final = (
    Goal("ingest", "rate", "ingest with windows and checkpoint, one process", "events/s", "≥", 1e5),
    Goal("ingest", "over faust", "ingest over a plain Faust table agent", "×", "≥", 40),
    Goal("ingest", "over quix", "ingest over Quix Streams", "×", "≥", 2.5),
    Goal("ingest", "over bytewax", "ingest over Bytewax", "×", "≥", 1.3),
    Goal("ingest", "over bare", "ingest over the bare aiokafka loop", "×", "≥", 0.5),
    Goal("user-encode", "of peak", "user encode, share of the matmul peak", "", "≥", 0.7, "padded"),
    Goal("user-encode", "padded", "user encode over the padded form", "×", "≥", 5, "of peak"),
    Goal("user-encode", "text", "user encode over the text-window method", "×", "≥", 200),
    Goal("item-encode", "rate", "item encode over sentence-transformers", "×", "≥", 1.5),
    Goal("item-encode", "cosine", "item encode, least cosine to it", "", "≥", 0.999),
    Goal("freshness", "p50", "freshness at half load, p50", "ms", "≤", 10),
    Goal("freshness", "p99", "freshness at half load, p99", "ms", "≤", 50),
    Goal("overload", "vectors", "overload 5×: vectors/s of the maximum", "×", "≥", 0.9),
    Goal("overload", "memory", "overload 5×: memory grows in the second half", "×", "≤", 1.05),
    Goal("overload", "back", "overload 5×: freshness back after", "s", "≤", 5),
    Goal("recovery", "seconds", "recovery, above the session time-out, per 100k windows", "s",
         "≤", 2),
    Goal("many-users", "rate", "1M users by Zipf(1), rate over that of 10k", "×", "≥", 0.8),
    Goal("many-users", "window", "memory of a window of 50 events", "bytes", "≤", 1500),
    Goal("retrieval", "process", "top 10 of 100k items in process, p99", "ms", "≤", 5),
    Goal("retrieval", "http", "top 10 of 100k items over HTTP, p99", "ms", "≤", 10),
)  # fmt: skip


def judged(
    benchmark: str,
    values: Mapping[str, float | str],
    device: str = "",
    goals: Iterable[Goal] = GOALS,
) -> list[Target]:
    """Hold the values of one benchmark against its goals; a text says why there is no value.

    Raises:
        KeyError: there is no goal of that key.
    """
    own = {goal.key: goal for goal in goals if goal.benchmark == benchmark}
    if unknown := set(values) - set(own):
        raise KeyError(f"{benchmark} has no goals {sorted(unknown)}; there are {sorted(own)}")
    return [_target(goal, own, values, device) for goal in own.values()]


def _target(
    goal: Goal, own: Mapping[str, Goal], values: Mapping[str, float | str], device: str
) -> Target:
    wanted = f"{goal.sign} {goal.bound:,g}"
    value = values.get(goal.key, NOT_MEASURED)
    met = not isinstance(value, str) and goal.reached(value)
    if goal.instead:
        other = own[goal.instead]
        wanted += f", or {other.name} {other.sign} {other.bound:,g}"
        second = values.get(other.key, NOT_MEASURED)
        met = met or (not isinstance(second, str) and other.reached(second))
    return Target(
        benchmark=labelled(goal.benchmark, device),
        name=labelled(goal.name, device),
        value=None if isinstance(value, str) else value,
        unit=goal.unit,
        target=wanted,
        met=met,
        skipped=value if isinstance(value, str) else "",
    )


def labelled(name: str, device: str) -> str:
    """Name what was measured elsewhere than on the processor, so that both rows can stand."""
    return f"{name} ({device})" if device else name


def complete(targets: Iterable[Target], goals: Iterable[Goal] = GOALS) -> list[Target]:
    """Give them in the order of the table: what has no goal any more goes, what is missing comes.

    Targets of another device come last.
    """
    goals = tuple(goals)
    found = {(target.benchmark, target.name): target for target in targets}
    rows: list[Target] = []
    for goal in goals:
        held = found.pop((goal.benchmark, goal.name), None)
        own = [other for other in goals if other.benchmark == goal.benchmark]
        missing = _target(goal, {other.key: other for other in own}, {}, "")
        rows.append(held or missing)
    known = {goal.name for goal in goals}
    return rows + [t for t in found.values() if t.name.rpartition(" (")[0] in known]
