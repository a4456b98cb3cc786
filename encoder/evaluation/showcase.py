"""A few users to look at: what they had last, what rows recommend, and how far that is related.

Related is an item that shares a word of its title (stop words aside) or a category with the
history. It says whether recommendations can be understood, not whether they are good: the rows of
``interest evaluate`` say that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from encoder.text import terms
from interest.columns import columns
from interest.event import TYPE_CODES, EventType
from interest.item import Item
from interest.item_table import ItemTable
from interest.window import BehaviourWindow

_NO_TITLE: frozenset[str] = frozenset()


class Showcase(NamedTuple):
    """What some users had and get; B users, K items each, by rows of the catalogue."""

    items: Sequence[Item]
    user_ids: Sequence[str]
    #: Newest first.
    histories: Sequence[Sequence[int]]
    #: By the name of the row: (B, K), best first, -1 for none.
    best: Mapping[str, NDArray[np.int32]]


def numbered(windows: Sequence[BehaviourWindow], items: Sequence[Item]) -> list[BehaviourWindow]:
    """Give windows in the form that rankers read: the number of an item is its row + 1.

    Events of items that are not in the catalogue are left out.
    """
    table = ItemTable()
    for item in items:
        table.number(item.item_id)
    n_known = len(table)
    moved = (window.moved(table) for window in windows)
    return [
        window.with_rows([row for row in window.rows() if row.item < n_known]) for window in moved
    ]


def dataset_of(windows: Sequence[BehaviourWindow], items: Sequence[Item]) -> Dataset:
    """Give numbered windows as the log that baselines are fitted on; events without item are left
    out, and what is taken back counts as little there as anywhere in these baselines.
    """
    events = columns(windows)
    has_item = events.items > 0
    before = np.concatenate([[0], np.cumsum(has_item)])
    n_events = int(has_item.sum())
    return Dataset(
        item_ids=[item.item_id for item in items],
        titles=[item.title for item in items],
        user_ids=[window.subject_id for window in windows],
        starts=before[events.starts],
        items=events.items[has_item].astype(np.int32) - 1,
        times_s=events.ts[has_item] // 1000,
        types=np.full(n_events, TYPE_CODES[EventType.CLICK], np.uint8),
        ratings=np.full(n_events, np.nan, np.float32),
        fingerprint="",
    )


def history_of(window: BehaviourWindow) -> list[int]:
    """Give the rows of a numbered window's distinct items, newest first."""
    return [number - 1 for number in dict.fromkeys(reversed(window.item_numbers())) if number]


def choose(windows: Sequence[BehaviourWindow], n: int, seed: int, at_least: int) -> list[int]:
    """Choose users at random who have so many distinct items; fewer where there are no more."""
    able = [i for i, window in enumerate(windows) if len(history_of(window)) >= at_least]
    chosen = np.random.default_rng(seed).permutation(len(able))[:n]
    return sorted(able[i] for i in chosen.tolist())


def best_items(
    scores: NDArray[np.float32], histories: Sequence[Sequence[int]], k: int, seed: int
) -> NDArray[np.int32]:
    """Give the rows of the best items without those of the history, (B, k); -1 for none.

    Args:
        scores: (B, N), changed.
        seed: of the order in which items of equal score stand.
    """
    for row, history in zip(scores, histories, strict=True):
        row[list(history)] = -np.inf
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    found = order[np.argsort(-scores[:, order], axis=1, kind="stable")[:, :k]].astype(np.int32)
    found[np.isneginf(np.take_along_axis(scores, found, axis=1))] = -1
    return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)


def related_shares(showcase: Showcase, n_last: int | None = None) -> dict[str, float]:
    """Give the share of each row's items that are related to the history; NaN where it gives none.

    Args:
        n_last: of the history only its newest items count; None: all.
    """
    says = [_says(item) for item in showcase.items]
    shares: dict[str, float] = {}
    for name, best in showcase.best.items():
        related: list[bool] = []
        for rows, history in zip(best.tolist(), showcase.histories, strict=True):
            known = _NO_TITLE.union(*(says[row] for row in history[:n_last]))
            related += [not known.isdisjoint(says[row]) for row in rows if row >= 0]
        shares[name] = float(np.mean(related)) if related else np.nan
    return shares


def _says(item: Item) -> frozenset[str]:
    """Give words of the title and categories; no word holds a slash."""
    return frozenset(terms(item.title)) | {f"category/{name}" for name in item.categories}
