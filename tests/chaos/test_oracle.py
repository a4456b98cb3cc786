"""The judges themselves: an oracle or a reader that is blind would let everything pass."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from tests.chaos import oracle
from tests.chaos.oracle import Logged
from tests.chaos.reader import Watch
from tests.chaos.verdict import Verdict, compare_windows

T0 = 1_700_000_000_000
DAY_MS = 86_400_000


def logged(event_id: str, ts: int, *, at: int = T0, mark: str = "", **fields: Any) -> Logged:
    event = {"event_id": event_id, "user_id": "u", "type": "click", "item_id": "i", "ts": ts}
    headers = ((oracle.MARK, mark.encode()),) if mark else ()
    value = json.dumps(event | fields).encode()
    return Logged("behaviours", 0, 0, at, b"u", value, headers)


def ids(records: list[Logged], forgotten: dict[str, int] | None = None) -> list[str]:
    found = oracle.windows(records, forgotten or {})
    return [event["event_id"] for event in found.get("u", [])]


def test_a_window_is_a_set_by_id_ordered_by_time_and_hash_of_the_id() -> None:
    records = [logged("b", T0), logged("c", T0 + 1), logged("a", T0), logged("b", T0)]
    # XXH3-64: a e6c6…, b 575a….
    assert ids(records) == ["b", "a", "c"]
    assert ids([*records, logged("a", T0 + 2)]) == ["b", "c", "a"]  # the greater time counts


def test_a_window_that_names_an_event_nobody_produced_is_told_from_the_log() -> None:
    log = [logged("a", T0)]
    kept = {"ts": T0, "type": "click", "item_id": "i", "user_id": "u"}
    [known, unknown] = oracle.named(
        {"u": [{**kept, "id_hash": oracle.hashed({"event_id": name})} for name in ("a", "b")]}, log
    )["u"]
    assert known == json.loads(log[0].value or b"")
    assert unknown["event_id"] == f"unknown {oracle.hashed({'event_id': 'b'})}"


def test_a_window_holds_the_newest_50_of_30_days() -> None:
    records = [logged(f"{n:02}", T0 + n) for n in range(60)]
    assert ids(records) == [f"{n:02}" for n in range(10, 60)]
    late = T0 + 30 * DAY_MS
    assert ids([logged("old", T0), logged("edge", T0 + 1), logged("new", late)]) == ["edge", "new"]


def test_impressions_and_marked_records_are_no_behaviours() -> None:
    assert not ids([logged("a", T0, type="impression"), logged("b", T0, mark="poison")])


def test_what_is_as_old_as_the_request_to_forget_is_gone_by_either_time() -> None:
    records = [
        logged("before", T0, at=T0),
        logged("late", T0, at=T0 + 10),
        logged("ahead", T0 + 10, at=T0),
        logged("after", T0 + 6, at=T0 + 6),
    ]
    assert ids(records, {"u": T0 + 5}) == ["after"]


@pytest.mark.parametrize(
    ("got", "kind"),
    [(["a"], "lost"), (["a", "b", "b"], "doubled"), (["a", "b", "c"], "doubled")],
)
def test_windows_that_differ_are_counted(got: list[str], kind: str) -> None:
    verdict = Verdict()
    events = {name: {"event_id": name, "ts": T0} for name in "abc"}
    want = [events["a"], events["b"]]
    compare_windows({"u": want}, {"u": [events[name] for name in got]}, verdict)
    assert verdict.counts[kind] == 1
    assert not verdict.good


def record(token: tuple[int, int, int], ts: int, n_events: int) -> bytes:
    return struct.pack("<4sBBHHHiIIQqqq8x", b"IUV1", 1, 0, 4, 0, n_events, 0, *token, ts, 0, 0)


def test_a_reader_reports_tokens_and_contents_that_step_back_and_vectors_that_vanish() -> None:
    watch = Watch()
    assert not watch.look("u", record((0, 1, 5), T0, 3))
    assert not watch.look("u", record((0, 2, 5), T0, 3))
    assert "token" in watch.look("u", record((0, 1, 9), T0 + 1, 4))
    assert "content" in watch.look("u", record((0, 3, 1), T0, 4))
    assert "gone" in watch.look("u", None)


def test_a_reader_allows_lower_vectors_after_a_loss_until_they_are_back() -> None:
    watch = Watch()
    assert not watch.look("u", record((0, 1, 5), T0, 3))
    watch.obey({"lost": True})
    assert not watch.look("u", None)
    assert not watch.look("u", record((0, 1, 4), T0 - 1, 2))
    assert not watch.look("u", record((0, 2, 5), T0, 3))
    assert "content" in watch.look("u", record((0, 3, 5), T0 - 1, 3))


def test_a_reader_judges_nothing_between_the_announcement_of_a_loss_and_its_end() -> None:
    watch = Watch()
    assert not watch.look("u", record((0, 1, 5), T0, 3))
    watch.obey({"losing": True})
    assert not watch.look("u", record((0, 1, 5), T0, 3))
    assert not watch.look("u", None)
    watch.obey({"lost": True})
    assert not watch.look("u", None)
    assert not watch.look("u", record((0, 1, 5), T0, 3))
    assert "gone" in watch.look("u", None)


def test_a_reader_reports_who_comes_back_after_being_forgotten() -> None:
    watch = Watch()
    assert not watch.look("u", record((0, 1, 5), T0, 3))
    watch.obey({"forget": "u", "ms": T0})
    assert not watch.look("u", None)
    watch.obey({"forgotten": "u"})
    assert "came back" in watch.look("u", record((0, 1, 5), T0, 3))


def test_a_reader_allows_who_was_forgotten_in_an_older_copy_until_they_are_gone() -> None:
    watch = Watch()
    watch.obey({"forget": "u", "ms": T0})
    watch.obey({"forgotten": "u"})
    watch.obey({"lost": True})
    assert not watch.look("u", record((0, 1, 5), T0, 3))
    assert not watch.look("u", None)
    assert "came back" in watch.look("u", record((0, 1, 5), T0, 3))


def test_a_reader_allows_that_also_where_forgetting_was_under_way_when_the_copy_came() -> None:
    watch = Watch()
    assert not watch.look("u", record((0, 1, 5), T0, 3))
    watch.obey({"forget": "u", "ms": T0})
    watch.obey({"lost": True})
    watch.obey({"forgotten": "u"})
    assert not watch.look("u", record((0, 1, 5), T0, 3))
    assert not watch.look("u", None)
    assert "came back" in watch.look("u", record((0, 1, 5), T0, 3))
