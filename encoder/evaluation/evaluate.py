"""Rankers and targets go in, the rows of the table come out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from encoder.evaluation.histories import histories, item_table
from encoder.evaluation.metrics import (
    HELD_OUT,
    HELD_OUT_CUT,
    SLICE_CUT,
    Difference,
    Slices,
    bootstrap_means,
    coverage,
    difference,
    ndcg,
    recall,
    slices,
    summary,
)
from encoder.evaluation.protocols import Cases, Part, Split
from encoder.evaluation.ranking import Chunk, Ranked, Ranker, chunk_size
from encoder.spans import spread
from interest.window import WindowLimits

_ORDER_SEED: Final = 0
_NO_RUNS: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})

#: Told how many targets are ranked, and of how many.
Progress = Callable[[int, int], None]


class Evaluation(NamedTuple):
    """The rankings of some rows for the targets of one part of a split.

    ``runs`` names those that are one row of the table, trained with several seeds: its figures are
    their means.
    """

    dataset: Dataset
    split: Split
    part: Part
    rows: dict[str, Ranked]
    runs: Mapping[str, Sequence[str]] = _NO_RUNS

    @property
    def cases(self) -> Cases:
        """The targets."""
        return self.split.cases(self.part)

    def by_name(self) -> dict[str, list[str]]:
        """Give the rows of the table, each with the rankings that it is made of."""
        row_of = {run: name for name, runs in self.runs.items() for run in runs}
        found: dict[str, list[str]] = {}
        for name in self.rows:
            found.setdefault(row_of.get(name, name), []).append(name)
        return found


class Comparison(NamedTuple):
    """NDCG@10 of a row less that of another, over a slice of the targets."""

    ours: str
    theirs: str
    over: str  # "all" or "untied"
    difference: Difference


def evaluate(
    dataset: Dataset,
    split: Split,
    part: Part,
    rankers: Mapping[str, Ranker],
    limits: WindowLimits,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Rank the whole catalogue for each target by each ranker.

    Memory: one chunk of scores at a time, and 100 bytes per target and ranker.
    """
    cases = split.cases(part)
    order = np.random.default_rng(_ORDER_SEED).permutation(dataset.n_items)
    windows = histories(dataset, cases, limits, item_table(dataset))
    size = chunk_size(dataset.n_items)
    ranked: dict[str, list[Ranked]] = {name: [] for name in rankers}
    for first in range(0, len(cases), size):
        some = Cases(cases.users[first : first + size], cases.places[first : first + size])
        chunk = Chunk(dataset, some, order)
        batch = list(itertools.islice(windows, len(some)))
        for name, ranker in rankers.items():
            ranked[name].append(chunk.rank(ranker.scores(batch)))
        progress(first + len(some), len(cases))
    return Evaluation(
        dataset, split, part, {name: _joined(parts) for name, parts in ranked.items()}
    )


def _joined(parts: list[Ranked]) -> Ranked:
    return Ranked(
        np.concatenate([np.zeros(0), *(part.ranks for part in parts)]),
        np.concatenate([np.zeros(0), *(part.unmasked_ranks for part in parts)]),
        np.concatenate([np.zeros((0, 20), np.int32), *(part.best for part in parts)]),
    )


def table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Give the figures of each row.

    ``untied_…`` are there where the log has times, ``unmasked_…`` where some target lies in its
    history, ``held_out_recall@50`` where items were kept from training; ``slices`` hold NDCG@10 by
    slice, ``runs`` the figures of each seed where there are several. None stands for a mean over
    no target.
    """
    dataset, cases = evaluation.dataset, evaluation.cases
    cut = slices(dataset, evaluation.split, cases)
    repeats = bool(buys_again(dataset, cases).any())
    rows: list[dict[str, Any]] = []
    for name, runs in evaluation.by_name().items():
        made = [
            {"name": run, **_figures(evaluation.rows[run], dataset.n_items, cut, repeats)}
            for run in runs
        ]
        rows.append(made[0] if runs == [name] else {"name": name, **_mean(made), "runs": made})
    return rows


def _figures(ranked: Ranked, n_items: int, cut: Slices, repeats: bool) -> dict[str, Any]:
    row: dict[str, Any] = {**summary(ranked.ranks)}
    if cut.untied is not None:
        row |= _named("untied_", summary(ranked.ranks[cut.untied]))
    if repeats:
        row |= _named("unmasked_", summary(ranked.unmasked_ranks))
    held_out = cut.by_name.get(HELD_OUT)
    if held_out is not None and held_out.any():
        found = recall(ranked.ranks[held_out], HELD_OUT_CUT).mean()
        row[f"held_out_recall@{HELD_OUT_CUT}"] = float(found)
    row[f"coverage@{SLICE_CUT}"] = coverage(ranked.best, n_items)
    gains = ndcg(ranked.ranks, SLICE_CUT)
    row["slices"] = {
        slice_: float(gains[part].mean()) if part.any() else None
        for slice_, part in cut.by_name.items()
    }
    return {key: None if value != value else value for key, value in row.items()}


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give the mean of every figure of some rows, which have the same ones."""
    means: dict[str, Any] = {}
    for key, value in rows[0].items():
        values = [row[key] for row in rows]
        if isinstance(value, Mapping):
            means[key] = _mean(values)
        elif not isinstance(value, str):
            means[key] = None if value is None else float(np.mean(values))
    return means


def slice_sizes(evaluation: Evaluation) -> dict[str, int]:
    """Count the targets, in all and by slice."""
    cut = slices(evaluation.dataset, evaluation.split, evaluation.cases)
    sizes = {"all": len(evaluation.cases)}
    if cut.untied is not None:
        sizes["untied"] = int(cut.untied.sum())
    return sizes | {name: int(part.sum()) for name, part in cut.by_name.items()}


def comparisons(evaluation: Evaluation) -> list[Comparison]:
    """Compare each two rows by a paired bootstrap over users, over all and over untied targets."""
    cases = evaluation.cases
    parts: dict[str, NDArray[np.bool_]] = {"all": np.ones(len(cases), np.bool_)}
    untied = slices(evaluation.dataset, evaluation.split, cases).untied
    if untied is not None:
        parts["untied"] = untied
    by_name = evaluation.by_name()
    names = list(by_name)
    found: list[Comparison] = []
    for over, part in parts.items():
        if not part.any() or not names:
            continue
        values = np.stack(
            [
                np.mean([ndcg(evaluation.rows[run].ranks[part], SLICE_CUT) for run in runs], axis=0)
                for runs in by_name.values()
            ],
            axis=1,
        )  # (B, R), of a row with several seeds their mean
        means = bootstrap_means(values, cases.users[part])
        found += [
            Comparison(names[ours], names[theirs], over, difference(values, means, ours, theirs))
            for theirs, ours in itertools.combinations(range(len(names)), 2)
        ]
    return found


def buys_again(dataset: Dataset, cases: Cases) -> NDArray[np.bool_]:
    """Tell which targets already lie in their history, (B,)."""
    lengths = cases.places - dataset.starts[cases.users]
    owner, places = spread(dataset.starts[cases.users], lengths)
    history = dataset.items[places]
    found = np.zeros(len(cases), np.bool_)
    found[owner[history == dataset.items[cases.places][owner]]] = True
    return found


def best_by_user(evaluation: Evaluation, name: str) -> NDArray[np.int32]:
    """Give the best items of a row, (U, 20), users in the order of the file, -1 for none.

    Of a user with several targets those of the last, of a row with several seeds the first's.
    """
    best = np.full((evaluation.dataset.n_users, 20), -1, np.int32)
    best[evaluation.cases.users] = evaluation.rows[evaluation.by_name()[name][0]].best
    return best


def _named(prefix: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {prefix + name: value for name, value in figures.items()}
