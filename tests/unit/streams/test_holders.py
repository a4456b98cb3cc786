"""Holders of a changed item."""

from __future__ import annotations

import asyncio

from interest.event import decode_event
from interest.fold import fold
from interest.window import WindowLimits
from streams.dirty import DirtyUsers
from streams.holders import Holders
from streams.progress import Progress
from tests.unit.streams.fakes import Windows, event_json


async def test_holders_are_marked_under_the_present_generation_and_nobody_else() -> None:
    windows, dirty, progress = Windows(), DirtyUsers(), Progress()
    partition = windows.partition(0)
    for user, item_id in (("a", "mug"), ("b", "hose"), ("c", "mug")):
        event = decode_event(event_json("e", user, item_id=item_id))
        partition.replace(fold(partition.window(user), [event], WindowLimits()), generation=5)
    progress.start(6)
    holders = Holders(windows, dirty, progress)  # type: ignore[arg-type]
    running = asyncio.create_task(holders.run())
    holders.changed(["mug", "unheld"])

    def pending() -> bool:
        return holders.pending

    assert pending()
    await asyncio.wait_for(dirty.wait(), 5)
    assert [mark.subject_id for mark in dirty.take(lambda mark: 1, 9)] == ["a", "c"]
    # A former owner of generation 5 may have raised the revision just as often.
    assert partition.held["a"].token == (0, 6, 2)
    assert partition.held["b"].token == (0, 5, 1)
    while pending():
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
