"""Idle users leave, and come back above what was let go."""

from __future__ import annotations

from interest.event import decode_event
from interest.fold import fold
from interest.metrics import NoMetrics
from interest.window import WindowLimits
from streams.compaction import Compaction
from streams.dirty import DirtyUsers
from streams.idle import IdleUsers
from tests.unit.streams.fakes import T0, Windows, event_json

DAY_MS = 86_400_000
NOW = T0 + 100 * DAY_MS


def idle_users(windows: Windows, dirty: DirtyUsers) -> IdleUsers:
    return IdleUsers(
        idle_days=90, marker_days=400, windows=windows, compaction=Compaction(windows), dirty=dirty,  # type: ignore[arg-type]
        clock=lambda: NOW, metrics=NoMetrics(),
    )  # fmt: skip


async def test_users_leave_by_when_they_were_last_seen_not_by_event_time() -> None:
    windows, dirty = Windows(), DirtyUsers()
    partition = windows.partition(0)
    for user, touched_ms in (("idle", T0), ("replayed", NOW - 1), ("waiting", T0)):
        window = fold(
            partition.window(user), [decode_event(event_json("e", user, ts=T0))], WindowLimits()
        )
        partition.replace(window, 3, touched_ms=touched_ms)
    dirty.mark("waiting", 0, None)
    assert await idle_users(windows, dirty).evict(partition) == 1
    assert set(partition.held) == {"replayed", "waiting"}
    [tombstone] = partition.removed.values()
    assert (tombstone.key, tombstone.token) == (b"idle", (0, 3, 1))
    back = fold(
        partition.window("idle"), [decode_event(event_json("new", "idle", ts=NOW))], WindowLimits()
    )
    partition.replace(back, 3, touched_ms=NOW)
    assert partition.held["idle"].token > (0, 3, 1)
    assert not partition.removed


async def test_markers_end_after_their_days() -> None:
    windows = Windows()
    partition = windows.partition(0)
    partition.forget("old", NOW - 401 * DAY_MS, 1)
    partition.forget("new", NOW - 399 * DAY_MS, 1)
    await idle_users(windows, DirtyUsers()).evict(partition)
    assert partition.marker("old") is None
    assert partition.marker("new") is not None
