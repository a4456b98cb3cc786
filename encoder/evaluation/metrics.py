"""Ranks to figures. There is one relevant item per target, so NDCG needs no ideal ranking.

Recall@k is the share of targets of rank below k; NDCG@k is the mean of 1 / log2(rank + 2) over
those below k, else 0 (Järvelin and Kekäläinen 2002, with one relevant item), where rank 0 is first.
Tied scores count half (see :class:`~encoder.evaluation.ranking.Ranked`), so a ranker gains nothing
from the order in which equal items happen to stand; ranks may therefore end in .5.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from encoder.evaluation.protocols import Cases, Split, untied

CUTS: Final = (5, 10, 20)
#: The cut of coverage and of the slices.
SLICE_CUT: Final = 10
DRAWS: Final = 1_000
#: A target that was trained on fewer times is cold.
COLD_EVENTS: Final = 5
#: The slice of targets whose item was kept from training, and how deep they are looked for.
HELD_OUT: Final = "held-out item"
HELD_OUT_CUT: Final = 50
#: A history of at most so many events is short.
SHORT_EVENTS: Final = 5
_DRAWS_AT_ONCE: Final = 64
#: Both ends of a 95% interval.
_QUANTILES: Final = (0.025, 0.975)


def recall(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Give 1 for each target that is among the first k, else 0; (B,)."""
    return (ranks < k).astype(np.float64)


def ndcg(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Give the discounted gain of each target; (B,) in 0..1."""
    return np.where(ranks < k, 1 / np.log2(ranks + 2), 0.0)


def summary(ranks: NDArray[np.float64]) -> dict[str, float]:
    """Give the means of Recall and NDCG at each cut, by name; NaN where there is no target."""
    if not len(ranks):
        return {f"{name}@{k}": np.nan for k in CUTS for name in ("recall", "ndcg")}
    return {
        f"{name}@{k}": float(of(ranks, k).mean())
        for k in CUTS
        for name, of in (("recall", recall), ("ndcg", ndcg))
    }


def coverage(best: NDArray[np.int32], n_items: int) -> float:
    """Give the share of the catalogue that is among anybody's first ten; best is (B, ≥ 10)."""
    shown = np.unique(best[:, :SLICE_CUT])
    return float((shown >= 0).sum() / n_items)


class Slices(NamedTuple):
    """Parts of the targets by what was known of them, each (B,).

    The thirds cut the items by training events so that each holds about a third of the events;
    items of equal count are never parted.
    """

    untied: NDArray[np.bool_] | None
    by_name: dict[str, NDArray[np.bool_]]


def slices(dataset: Dataset, split: Split, cases: Cases) -> Slices:
    """Cut the targets of a split into slices."""
    counts = np.bincount(dataset.items[split.train], minlength=dataset.n_items)  # (N,)
    thirds = popularity_thirds(counts)
    targets = dataset.items[cases.places]
    lengths = cases.places - dataset.starts[cases.users]
    names = ("popular", "middle", "rare")
    by_name = {f"{name} third": thirds[targets] == i for i, name in enumerate(names)}
    by_name["cold item"] = counts[targets] < COLD_EVENTS
    if split.held_out is not None:
        by_name[HELD_OUT] = split.held_out[targets]
    by_name["short history"] = lengths <= SHORT_EVENTS
    return Slices(untied(dataset, cases), by_name)


def popularity_thirds(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give 0, 1 or 2 for each item, 0 for the most popular; counts and result are (N,)."""
    values, n_items = np.unique(counts, return_counts=True)  # ascending
    events = values * n_items
    # Events of all items that are more popular than those of this count.
    above = events.sum() - np.cumsum(events)  # (V,)
    third = np.minimum(3 * above // max(1, events.sum()), 2)
    thirds: NDArray[np.int64] = third[np.searchsorted(values, counts)]
    return thirds


def bootstrap_means(
    values: NDArray[np.float64], users: NDArray[np.int64], *, seed: int = 0, draws: int = DRAWS
) -> NDArray[np.float64]:
    """Give the means of columns over users drawn with replacement, all columns over the same.

    So the difference of two columns of the result is a paired bootstrap (Efron and Tibshirani
    1993, chapter 13). A user is drawn with all of his targets.

    Args:
        values: (B, R), one column per ranker.
        users: (B,) who each target belongs to.

    Returns:
        (draws, R).
    """
    _, owner = np.unique(users, return_inverse=True)
    n_users = int(owner.max(initial=-1)) + 1
    if not n_users:
        return np.full((draws, values.shape[1]), np.nan)
    totals = np.stack([np.bincount(owner, column, n_users) for column in values.T], axis=1)
    sizes = np.bincount(owner, minlength=n_users)  # (U,)
    random = np.random.default_rng(seed)
    means = np.empty((draws, values.shape[1]))
    for first in range(0, draws, _DRAWS_AT_ONCE):
        n = min(_DRAWS_AT_ONCE, draws - first)
        drawn = random.integers(n_users, size=(n, n_users))
        times = np.stack([np.bincount(row, minlength=n_users) for row in drawn])  # (n, U)
        means[first : first + n] = (times @ totals) / (times @ sizes)[:, np.newaxis]
    return means


class Difference(NamedTuple):
    """A mean less another, and its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """True where the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def difference(
    values: NDArray[np.float64], means: NDArray[np.float64], ours: int, theirs: int
) -> Difference:
    """Compare two columns of values (B, R), by their :func:`bootstrap_means` (draws, R)."""
    low, high = np.quantile(means[:, ours] - means[:, theirs], _QUANTILES)
    mean = (values[:, ours] - values[:, theirs]).mean()
    return Difference(float(mean), float(low), float(high))
