"""Windows on disk are as good as windows in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interest.errors import BadInput
from interest.event import Event, EventType
from interest.fold import window_of
from streams.window_folder import window_folder
from streams.window_map import MemoryWindows, SpilledWindows
from streams.window_records import Held, WindowRecords

T0 = 1_700_000_000_000
USERS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["set", "get", "peek", "change", "note", "encoded", "delete"]), USERS
    ),
    max_size=60,
)
EVENT = Event(event_id="new", user_id="a", type=EventType.CLICK, ts=T0, item_id="item 1")


def held(user: str, n_events: int) -> Held:
    events = [
        Event(event_id=f"{user}{i}", user_id=user, type=EventType.REVIEW, ts=T0 + i,
              item_id=f"item {i}", text="gut", rating=4.0)
        for i in range(n_events)
    ]  # fmt: skip
    window = window_of(user, events)
    return Held(
        window, generation=3, touched_ms=T0 + n_events, sound=window_of(user, events[:-1]),
    )  # fmt: skip


def told(one: Held | None) -> Any:
    """Everything of a window that counts, whatever table its items are of."""
    if one is None:
        return None
    sound = None if one.sound is None else one.sound.content()
    return (
        one.window.content(), one.token, one.touched_ms, dict(one.ahead), one.fresh, sound,
        one.window.unresolved,
    )  # fmt: skip


@pytest.fixture
def spilled(tmp_path: Path) -> Any:
    made = SpilledWindows(tmp_path / "windows", 2, 7, WindowRecords("changelog"))
    yield made
    made.close()


def apply(windows: MemoryWindows | SpilledWindows, step: str, user: str, number: int) -> Any:
    if step == "set":
        windows[user] = held(user, number % 5 + 1)
    elif step == "get":
        return told(windows.get(user))
    elif step == "peek":
        return told(windows.peek(user))
    elif step == "change":
        found = windows.get(user)
        if found is not None:  # in place, as the fold does it
            found.window = msgspec.structs.replace(found.window, revision=100 + number)
            found.touched_ms += number
    elif step in ("note", "encoded"):
        found = windows.get(user)
        if found is not None:
            found.fresh = (EVENT,) if step == "note" else ()
        windows.encoded(user)
    else:
        return told(windows.pop(user, None))
    return None


@settings(deadline=None, max_examples=50)  # each opens a database
@given(steps=STEPS)
def test_what_is_on_disk_answers_as_what_is_in_memory(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("spilled")
    memory = MemoryWindows()
    spilled = SpilledWindows(folder / "windows", 2, 7, WindowRecords("changelog"))
    for number, (step, user) in enumerate(steps):
        assert apply(spilled, step, user, number) == apply(memory, step, user, number)
        assert len(spilled) == len(memory)
        assert set(spilled) == set(memory)
        assert [user in spilled for user in "abcdef"] == [user in memory for user in "abcdef"]
        unproven = {one for one in spilled if (lies := spilled.peek(one)) and lies.new_events}
        assert len(set(spilled.in_memory()) - unproven) <= 2
    assert {user: told(spilled.peek(user)) for user in spilled} == {
        user: told(one) for user, one in memory.items()
    }
    spilled.close()
    assert list(folder.iterdir()) == []


def test_looking_does_not_count_as_use(spilled: SpilledWindows) -> None:
    for user in "abc":
        spilled[user] = held(user, 2)
    assert spilled.peek("a") is not None
    assert spilled.in_memory() == ["b", "c"]
    assert spilled.get("a") is not None
    assert spilled.in_memory() == ["c", "a"]


def test_what_was_not_encoded_yet_stays_until_it_is(spilled: SpilledWindows) -> None:
    event = Event(event_id="new", user_id="a", type=EventType.VIEW, ts=T0, item_id="i")
    for user in "abcd":
        waiting = held(user, 2)
        waiting.fresh = (event,)
        spilled[user] = waiting
    assert sorted(spilled.in_memory()) == list("abcd")
    for user in "abc":
        spilled[user].fresh = ()
        spilled.encoded(user)
    assert sorted(spilled.in_memory()) == list("bcd")
    for user in "efgh":
        spilled[user] = held(user, 2)
    assert sorted(spilled.in_memory()) == list("dgh")
    assert spilled["d"].fresh == (event,)


def test_who_is_let_go_leaves_the_disk(spilled: SpilledWindows) -> None:
    for user in "abc":
        spilled[user] = held(user, 2)
    del spilled["a"]
    assert spilled._db.get(b"a") is None
    spilled["b"]
    spilled["c"]
    assert "a" not in spilled
    with pytest.raises(KeyError):
        del spilled["a"]


def test_whoever_still_holds_a_partition_that_was_dropped_finds_it_emptier(
    spilled: SpilledWindows,
) -> None:
    for user in "abc":
        spilled[user] = held(user, 2)
    spilled.close()
    assert [user for user in "abc" if spilled.get(user)] == ["b", "c"]
    spilled["d"] = held("d", 1)
    assert told(spilled["d"]) == told(held("d", 1))


def test_folders_of_workers_that_were_killed_are_removed(tmp_path: Path) -> None:
    abandoned = tmp_path / "interest-windows-dead"
    abandoned.mkdir()
    (abandoned / "in-use").touch()
    with window_folder(str(tmp_path)) as first, window_folder(str(tmp_path)) as second:
        assert not abandoned.exists()
        paths = {first.new(0).parent, second.new(0).parent}
        assert len(paths) == 2
        assert all(path.exists() for path in paths)
        assert first.new(1) != first.new(1)
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_room_for_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"INTEREST_WINDOW_FOLDER.*missing"):
        window_folder(str(tmp_path / "missing")).__enter__()
