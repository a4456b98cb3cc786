"""Items that are in no window any more leave memory; no window is misread meanwhile."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from interest.event import decode_event
from interest.fold import fold
from interest.forgetting import subject_hash
from interest.item_table import ItemTable
from interest.window import WindowLimits
from streams.compaction import Compaction
from streams.window_records import WindowRecords
from streams.windows import WindowStore
from tests.unit.streams.fakes import T0, event_json

LIMITS = WindowLimits(max_events=2)


def store() -> WindowStore:
    nothing: Any = SimpleNamespace()
    made: Any = WindowStore("windows://", nothing, nothing, table_name="windows")
    made.records = WindowRecords("windows", items=ItemTable())
    made.hash_of = partial(subject_hash, "")
    windows: WindowStore = made
    return windows


def see(windows: WindowStore, user: str, *items: str, at: int = 0) -> None:
    partition = windows.partition(0)
    events = [
        decode_event(event_json(f"{user}{item}", user, ts=T0 + at + i, item_id=item))
        for i, item in enumerate(items)
    ]
    partition.replace(fold(partition.window(user), events, LIMITS), 1)


async def test_only_items_of_windows_are_left_and_everything_else_stays_as_it_was() -> None:
    windows = store()
    for number in range(50):
        see(windows, "u", *(f"i{number}-{k}" for k in range(4)), at=4 * number)
    see(windows, "v", "shared", "i49-3")
    partition = windows.partition(0)
    partition.held["u"].sound = partition.window("u")
    before = {user: held.window.content() for user, held in partition.held.items()}
    popular, in_flight = partition.popular.top(100, 7), partition.window("u")
    compaction = Compaction(windows, few=20)
    assert compaction.is_due
    await compaction.compact()
    assert len(windows.item_table) == 1 + 3
    assert len(windows.item_table) < 20
    assert {user: held.window.content() for user, held in partition.held.items()} == before
    assert all(held.window.items is windows.item_table for held in partition.held.values())
    assert partition.held["u"].sound is partition.held["u"].window
    assert partition.popular.top(100, 7) == popular
    # What an encoder still holds means the same items as ever, and so does what comes next.
    assert in_flight.item_ids == {"i49-2", "i49-3"}
    see(windows, "u", "i49-3", "new", at=1_000)
    assert partition.window("u").item_ids == {"new", "i49-3"}


async def test_a_window_that_changes_before_it_is_moved_goes_over_by_itself() -> None:
    windows = store()
    see(windows, "u", "a", "b")
    windows.begin_table(ItemTable())
    see(windows, "u", "a", "b", "c")
    partition = windows.partition(0)
    assert partition.window("u").item_ids == {"b", "c"}
    partition.remove("u")
    assert partition.popular.top(10, 7) == {}
