"""What fresh vectors are worth: the same targets ranked by vectors of different age.

A *query* is all that a user did at one time: the events of one time stamp say nothing of each
other's order, and lines of one basket would give each other away. It is ranked from the user's
events before that time, as far as a schedule has let them into the vector
(:mod:`encoder.evaluation.schedules`).

A vector that knows nothing yet is answered with what is popular at that very moment, as a service
would; so a stale vector is never blamed for a cold user.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from encoder.evaluation.histories import EVALUATION_LIMITS, events_of, item_table
from encoder.evaluation.ranking import Ranker, chunk_size
from encoder.evaluation.schedules import Schedule
from encoder.spans import spread
from interest.errors import BadInput
from interest.event import TYPE_CODES, EventType
from interest.fold import fold
from interest.window import BehaviourWindow

CUT: Final = 10
#: What is measured of each query, (4,): over all items, and over those new to the user.
FIGURES: Final = ("recall@10", "ndcg@10", "new_recall@10", "new_ndcg@10")
_GAINS: Final = 1 / np.log2(np.arange(CUT) + 2)

Ints = NDArray[np.int64]
Progress = Callable[[int, int], None]


class Queries(NamedTuple):
    """Times at which something is asked for; Q queries, ordered by user and time.

    The history of query q is ``starts[users[q]]:ends[q]``; its targets, T in all, are
    ``targets[borders[q]:borders[q + 1]]``, each item once.
    """

    users: Ints  # (Q,) rows
    times_s: Ints  # (Q,)
    ends: Ints  # (Q,) places of the first event that is not history
    targets: Ints  # (T,) rows of items
    borders: Ints  # (Q + 1,)


def queries(
    dataset: Dataset,
    *,
    since_s: int | None = None,
    types: Sequence[EventType] = (),
    last: bool = False,
) -> Queries:
    """Give the queries of a log; a user's first time has no history and is none.

    Args:
        since_s: Unix time of the first query; None for the whole log.
        types: events of these are targets; none for all but removals and returns.
        last: only the newest event of each user, where it is alone at its time.

    Raises:
        BadInput: the log has no times, or nothing is left.
    """
    if dataset.times_s is None:
        raise BadInput("the log has no times, so no vector can be late; add unix_times")
    users, times = dataset.users(), dataset.times_s
    is_first = np.ones(len(times), np.bool_)
    is_first[1:] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    first = np.flatnonzero(is_first)  # (G,) one group per user and time
    stop = np.append(first[1:], len(times))
    kept = first > dataset.starts[users[first]]
    if since_s is not None:
        kept &= times[first] >= since_s
    if last:
        kept &= (stop == dataset.starts[users[first] + 1]) & (stop - first == 1)
    asked = types or [t for t in EventType if t not in (EventType.REMOVE, EventType.RETURN)]
    is_asked = np.isin(dataset.types, [TYPE_CODES[t] for t in asked if t in TYPE_CODES])
    owner, places = spread(first[kept], (stop - first)[kept])
    pairs = owner * dataset.n_items + dataset.items[places]
    pairs = np.unique(pairs[is_asked[places]])
    owner, targets = np.divmod(pairs, dataset.n_items)
    found, n_targets = np.unique(owner, return_counts=True)
    if not len(found):
        raise BadInput("nothing to ask for: no event of these types has an earlier one of its user")
    place = first[kept][found]
    borders = np.concatenate([[0], np.cumsum(n_targets)]).astype(np.int64)
    return Queries(users[place], times[place], place, targets, borders)


def measure(
    dataset: Dataset,
    asked: Queries,
    schedules: Sequence[Schedule],
    ranker: Ranker,
    progress: Progress = lambda done, total: None,
) -> NDArray[np.float64]:
    """Rank the whole catalogue for each query by each schedule's vector.

    Windows are built by the worker's fold with the limits of evaluations. Where two schedules
    know the same events, they are ranked once.

    Returns:
        (R, Q, 4) by schedule, query and figure; NaN for figures of new items where no target is.
    """
    ends = np.stack([_known(dataset, asked, schedule) for schedule in schedules])  # (R, Q)
    n_queries, n_places = len(asked.users), len(dataset.items) + 1
    pairs, place = np.unique(np.arange(n_queries) * n_places + ends, return_inverse=True)
    table, popular = item_table(dataset), _Popular(dataset)
    values = np.empty((len(pairs), len(FIGURES)))
    size = chunk_size(dataset.n_items)
    for first in range(0, len(pairs), size):
        query, end = np.divmod(pairs[first : first + size], n_places)
        windows: list[BehaviourWindow] = []
        for user, stop in zip(asked.users[query].tolist(), end.tolist(), strict=True):
            start = max(int(dataset.starts[user]), stop - EVALUATION_LIMITS.max_events)
            window = BehaviourWindow(dataset.user_ids[user], items=table)
            known = events_of(dataset, user, start, stop)
            windows.append(fold(window, known, EVALUATION_LIMITS))
        scores = _scores(ranker, windows, dataset.n_items)
        cold = np.flatnonzero(scores.max(axis=1) <= 0)
        scores[cold] = popular.before(asked.times_s[query[cold]])
        for row, number in enumerate(query.tolist()):
            values[first + row] = _figures(dataset, asked, number, scores[row])
        progress(min(first + size, len(pairs)), len(pairs))
    by_schedule: NDArray[np.float64] = values[place.reshape(ends.shape)]
    return by_schedule


def _known(dataset: Dataset, asked: Queries, schedule: Schedule) -> Ints:
    """Give the end of what a schedule's vectors know of each query's history, (Q,)."""
    assert dataset.times_s is not None  # queries() refuses a log without
    until = np.minimum(schedule.until(asked.times_s), asked.times_s)
    ends = np.empty(len(until), np.int64)
    starts = dataset.starts[asked.users]
    for i, (start, end, second) in enumerate(zip(starts, asked.ends, until, strict=True)):
        ends[i] = start + np.searchsorted(dataset.times_s[start:end], second, side="left")
    return ends


def _scores(
    ranker: Ranker, windows: Sequence[BehaviourWindow], n_items: int
) -> NDArray[np.float32]:
    """Give (B, N); zeros for an empty window, which no ranker is asked for."""
    scores = np.zeros((len(windows), n_items), np.float32)
    held = [row for row, window in enumerate(windows) if len(window)]
    if held:
        scores[held] = ranker.scores([windows[row] for row in held])
    return scores


def _figures(
    dataset: Dataset, asked: Queries, number: int, scores: NDArray[np.float32]
) -> tuple[float, float, float, float]:
    """Give the figures of one query; scores (N,) are changed."""
    targets = asked.targets[asked.borders[number] : asked.borders[number + 1]]
    over_all = _gain(scores, targets)
    history = dataset.items[dataset.starts[asked.users[number]] : asked.ends[number]]
    new = targets[~np.isin(targets, history)]
    scores[history] = -np.inf
    return (*over_all, *_gain(scores, new))


def _gain(scores: NDArray[np.float32], targets: Ints) -> tuple[float, float]:
    """Give Recall and NDCG at 10 of several targets (Järvelin and Kekäläinen 2002, binary gains).

    Tied scores count half, as in :mod:`encoder.evaluation.metrics`; NaN without a target.
    """
    if not len(targets):
        return np.nan, np.nan
    own = scores[targets][:, np.newaxis]  # (T, 1)
    ranks = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    first = ranks[ranks < CUT]
    gain = (1 / np.log2(first + 2)).sum() / _GAINS[: len(targets)].sum()
    return len(first) / len(targets), float(gain)


class _Popular:
    """How often items were met before some moment, by everybody."""

    def __init__(self, dataset: Dataset) -> None:
        assert dataset.times_s is not None  # queries() refuses a log without
        order = np.argsort(dataset.times_s, kind="stable")
        self._times, self._items = dataset.times_s[order], dataset.items[order]
        self._n_items = dataset.n_items

    def before(self, times_s: Ints) -> NDArray[np.float32]:
        """Give (B, N) counts of the events before each time."""
        counts = np.zeros((len(times_s), self._n_items), np.float32)
        running, done = np.zeros(self._n_items, np.int64), 0
        for row in np.argsort(times_s).tolist():
            end = int(np.searchsorted(self._times, times_s[row], side="left"))
            running += np.bincount(self._items[done:end], minlength=self._n_items)
            counts[row], done = running, end
        return counts
