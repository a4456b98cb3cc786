"""The window before each target, built by the worker's own fold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from encoder.evaluation.dataset import Dataset
from encoder.evaluation.protocols import Cases
from interest.event import MIN_TS_MS, TYPES, Event, name_of
from interest.fold import fold
from interest.item_table import ItemTable
from interest.window import BehaviourWindow, WindowLimits

#: The newest 50 events, however old: benchmarks ask for the last event of years.
EVALUATION_LIMITS: Final = WindowLimits(max_events=50, span_ms=36_500 * 86_400_000)


def item_table(dataset: Dataset) -> ItemTable:
    """Give the table in which the number of an item is its row + 1."""
    table = ItemTable()
    for item_id in dataset.item_ids:
        table.number(item_id)
    return table


def histories(
    dataset: Dataset, cases: Cases, limits: WindowLimits, items: ItemTable
) -> Iterator[BehaviourWindow]:
    """Give the window of each target's history, in the order of ``cases``.

    A user's later targets go on from the window of the earlier one, as in the worker.
    """
    window = BehaviourWindow("")
    held_user, folded_to = -1, 0
    for user, place in zip(cases.users.tolist(), cases.places.tolist(), strict=True):
        if user != held_user:
            window = BehaviourWindow(dataset.user_ids[user], items=items)
            held_user, folded_to = user, int(dataset.starts[user])
        window = fold(window, events_of(dataset, user, folded_to, place), limits)
        folded_to = place
        yield window


def events_of(dataset: Dataset, user: int, first: int, end: int) -> list[Event]:
    """Make events of a stretch of the log.

    Ids are numbered in the order of the file, by names whose hash is the number: a window breaks
    ties of time by that hash, so events of one time stand as they do in the file. Without times
    an event comes a millisecond after the one before it.
    """
    places = range(first, end)
    if dataset.times_s is None:
        begin = int(dataset.starts[user])
        times = [MIN_TS_MS + place - begin for place in places]
    else:
        times = (dataset.times_s[first:end] * 1000).tolist()
    user_id, names = dataset.user_ids[user], dataset.item_ids
    return [
        Event(
            event_id=name_of(place.to_bytes(8, "big")),
            user_id=user_id,
            type=TYPES[code],
            ts=ts,
            item_id=names[item],
            rating=None if rating != rating else rating,
        )
        for place, ts, item, code, rating in zip(
            places,
            times,
            dataset.items[first:end].tolist(),
            dataset.types[first:end].tolist(),
            dataset.ratings[first:end].tolist(),
            strict=True,
        )
    ]
