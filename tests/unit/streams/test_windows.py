"""Recovery and ownership of windows."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from interest.errors import CorruptRecord
from interest.event import decode_event, id_hash
from interest.fold import fold
from interest.forgetting import Marker, subject_hash
from interest.vector import Token
from interest.window import BehaviourWindow, WindowLimits
from streams.partitions import Partition
from streams.window_records import Held, Tombstone, event_id_of
from tests.unit.streams.fakes import RECORDS, T0, KafkaRecord, empty_partition, event_json

Entry = Held | Marker | Tombstone
EMPTY = BehaviourWindow("u")


def window(n: int, *, era: int = 0, revision: int = 1) -> BehaviourWindow:
    folded = fold(EMPTY, [decode_event(event_json(f"e{i}")) for i in range(n)], WindowLimits())
    return msgspec.structs.replace(folded, era=era, revision=revision)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_recovery_keeps_the_highest_token_whatever_was_written_last(order: tuple[int, ...]) -> None:
    records = [
        Held(window(1, revision=90), 1),  # a zombie, far ahead in revisions
        Held(window(2, revision=3), 2),
        Held(window(3, revision=4), 2),
        Held(window(4, era=1, revision=2), 1),  # after a group reset
    ]
    partition = empty_partition(0)
    for i in order:
        partition.restore(records[i])
    assert len(partition.window("u")) == 4
    counts = partition.popular.top(10, 7)
    fresh = empty_partition(0)
    fresh.restore(records[3])
    assert counts == fresh.popular.top(10, 7)


def test_a_group_that_counts_anew_outranks_its_own_past() -> None:
    partition = empty_partition(0)
    partition.restore(Held(window(1, revision=9), 57))
    partition.replace(window(2, revision=10), generation=1)  # the group was deleted
    assert partition.held["u"].token == (1, 1, 10)
    partition.replace(window(3, era=1, revision=11), generation=1)
    assert partition.held["u"].token == (1, 1, 11)
    fresh = empty_partition(0)
    fresh.restore(Held(partition.window("u"), 1))
    fresh.restore(Held(window(1, revision=9), 57))
    assert len(fresh.window("u")) == 3


def test_popular_counts_follow_each_change_of_a_window() -> None:
    partition = empty_partition(0)
    partition.restore(Held(window(1), 1))
    partition.replace(window(2, revision=2), 2)
    partition.replace(window(3, revision=3), 2)
    assert partition.changed == {"u"}
    assert partition.held["u"].token == (0, 2, 3)
    fresh = empty_partition(0)
    fresh.restore(Held(window(3), 1))
    assert partition.popular.top(10, 7) == fresh.popular.top(10, 7) != {}
    partition.remove("u")
    assert partition.popular.top(10, 7) == {}


def gone(token: tuple[int, int, int], key: bytes = b"u") -> Tombstone:
    return Tombstone(key, Token(*token))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_tombstone_counts_by_its_token_whatever_was_written_last(order: tuple[int, ...]) -> None:
    entries: list[Entry] = [
        Held(window(2, revision=5), 2),
        gone((0, 2, 5)),
        Held(window(1, revision=9), 1),
    ]
    partition = empty_partition(0)
    for i in order:
        partition.restore(entries[i])
    partition.recovered(3)
    assert partition.held == {}
    assert partition.popular.top(10, 7) == {}
    # Where a zombie's window lies behind the tombstone, that must be written again.
    assert (b"u" in partition.removed) == (order.index(1) < max(order.index(0), order.index(2)))
    # The user comes back above everything that was let go.
    assert partition.window("u").revision == 5


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_zombies_tombstone_removes_nothing_newer(order: tuple[int, ...]) -> None:
    entries: list[Entry] = [
        Held(window(1, revision=9), 1),
        gone((0, 1, 9)),
        Held(window(2, revision=1), 2),
    ]
    partition = empty_partition(0)
    for i in order:
        partition.restore(entries[i])
    partition.recovered(3)
    assert len(partition.window("u")) == 2
    assert ("u" in partition.changed) == (order.index(2) < max(order.index(0), order.index(1)))


def test_a_user_who_comes_back_outranks_what_was_let_go_even_in_a_reset_group() -> None:
    partition = empty_partition(0)
    partition.restore(gone((1, 7, 5)))
    partition.recovered(2)
    back = fold(partition.window("v"), [decode_event(event_json("e", "v"))], WindowLimits())
    partition.replace(back, generation=2)
    assert partition.held["v"].token == (2, 2, 6)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_recovery_keeps_nothing_that_a_marker_outranks(order: tuple[int, ...]) -> None:
    marker = Marker(subject_hash("", "u"), T0 + 10, Token(0, 2, 6))
    entries: list[Entry] = [Held(window(3, revision=5), 2), marker, gone((0, 2, 5))]
    partition = empty_partition(0)
    for i in order:
        partition.restore(entries[i])
    partition.recovered(3)
    assert partition.held == {}
    assert partition.marker("u") == marker
    assert partition.window("u").revision >= 6


def test_forgetting_takes_what_is_older_and_what_arrived_before() -> None:
    partition = empty_partition(0)
    events = [decode_event(event_json(f"e{ts}", ts=T0 + ts)) for ts in (1, 5, 7, 9)]
    folded = fold(EMPTY, events, WindowLimits())
    # e7 has come before the request, though its producer's clock says otherwise.
    partition.replace(folded, 1, ahead={id_hash("e7"): T0 + 4})
    marker = partition.forget("u", T0 + 5, generation=1)
    assert [event.id_hash for event in partition.window("u").events] == [id_hash("e9")]
    assert partition.held["u"].token > marker.token > (0, 1, 1)
    # Read again after a crash, it changes nothing.
    token = partition.held["u"].token
    assert partition.forget("u", T0 + 5, generation=1) == marker
    assert partition.held["u"].token == token
    assert partition.forget("u", T0 + 9, generation=1).token > token
    assert partition.held == {}
    assert set(partition.removed) == {b"u"}


def test_a_marker_whose_time_is_over_leaves_the_changelog() -> None:
    partition = empty_partition(0)
    marker = partition.forget("u", T0, generation=1)
    partition.unmark(marker)
    [tombstone] = partition.removed.values()
    fresh = empty_partition(0)
    fresh.restore(marker)
    fresh.restore(tombstone)
    fresh.recovered(2)
    assert fresh.markers == {}


def read_back(held: Held) -> Entry:
    record = RECORDS.window(0, held)
    return RECORDS.read(
        KafkaRecord("windows", 0, 0, record.key, record.value, headers=record.headers)
    )


def test_what_new_events_pushed_out_is_kept_until_they_are_known_to_be_sound() -> None:
    limits = WindowLimits(max_events=2)
    events = [decode_event(event_json(f"e{ts}", ts=T0 + ts)) for ts in range(3)]
    sound = fold(EMPTY, events[:2], limits)
    held = Held(fold(sound, events[2:], limits), 3, sound=sound, fresh=("e0", events[2]))
    restored = read_back(held)
    assert isinstance(restored, Held)
    assert restored.window.content() == held.window.content()
    assert restored.sound is not None
    assert restored.sound.content() == sound.content()
    # A dead letter of it may be due before it is read again.
    assert restored.fresh == ("e2",)


def test_of_a_window_that_was_never_encoded_nothing_is_known_to_be_sound() -> None:
    first = fold(EMPTY, [decode_event(event_json("e0"))], WindowLimits())
    for sound in (None, EMPTY):
        restored = read_back(Held(first, 3, sound=sound))
        assert isinstance(restored, Held)
        assert restored.sound is not None
        assert len(restored.sound) == 0


def test_changelog_records_are_read_back_as_they_were_written() -> None:
    held = Held(window(2), 3, touched_ms=T0, ahead={id_hash("e0"): 7}, sound=window(2))
    marker = Marker(subject_hash("", "u"), T0, Token(1, 2, 3), 4)
    for record, expected in (
        (RECORDS.window(5, held), held),
        (RECORDS.marker(5, marker), marker),
        (RECORDS.tombstone(5, gone((1, 2, 3))), gone((1, 2, 3))),
    ):
        assert (record.topic, record.partition) == ("windows", 5)
        stored = KafkaRecord("windows", 5, 0, record.key, record.value, headers=record.headers)
        assert RECORDS.read(stored) == expected
    assert b"u" not in (RECORDS.marker(5, marker).key or b"")


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"u", None, ()),
        (b"u", None, (("token", None),)),
        (b"u", None, (("token", b"short"),)),
        (b"u", b"\xff", ()),
        (b"\xff" + bytes(16), b"\x90", ()),
        (b"u", "window", (("ahead", b"\x81\xa1\xff\x01"),)),
    ],
)
def test_a_damaged_record_is_told_apart(key: bytes, value: Any, headers: Any) -> None:
    if value == "window":
        value = RECORDS.window(0, Held(window(1), 1)).value
    with pytest.raises(CorruptRecord):
        RECORDS.read(KafkaRecord("windows", 5, 0, key, value, headers=headers))


def test_the_highest_tombstone_counts_whatever_was_written_last() -> None:
    partition = empty_partition(0)
    # A zombie let its user go, and took them back.
    for entry in (gone((0, 2, 5)), gone((0, 1, 9)), Held(window(1, revision=10), 1)):
        partition.restore(entry)
    partition.recovered(3)
    assert partition.held == {}
    assert partition.removed == {b"u": gone((0, 2, 5))}


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_a_zombies_marker_written_last_is_written_over(order: tuple[int, ...]) -> None:
    hashed = subject_hash("", "u")
    entries = [Marker(hashed, T0, Token(0, 1, 9)), Marker(hashed, T0 + 10, Token(0, 2, 6))]
    partition = empty_partition(0)
    for i in order:
        partition.restore(entries[i])
    partition.recovered(3)
    assert partition.marker("u") == entries[1]
    assert partition.marked == ({hashed: entries[1]} if order == (1, 0) else {})


def test_a_zombies_tombstone_of_a_marker_is_written_over() -> None:
    hashed = subject_hash("", "u")
    renewed = Marker(hashed, T0 + 10, Token(0, 2, 6))
    partition = empty_partition(0)
    partition.restore(renewed)
    partition.restore(gone((0, 1, 9), b"\xff" + hashed))
    partition.recovered(3)
    assert partition.marked == {hashed: renewed}


def test_who_is_forgotten_again_after_a_markers_end_stays_forgotten() -> None:
    partition = empty_partition(0)
    partition.restore(Marker(subject_hash("", "u"), T0, Token(0, 57, 9)))
    partition.recovered(1)
    partition.unmark(partition.markers[subject_hash("", "u")])
    [tombstone] = partition.removed.values()
    again = partition.forget("u", T0 + 10, generation=1)  # the group counts anew
    fresh = empty_partition(0)
    fresh.restore(tombstone)
    fresh.restore(again)
    fresh.recovered(2)
    assert fresh.marker("u") == again


def test_a_zombie_of_our_own_generation_does_not_outrank_us() -> None:
    partition = empty_partition(0)
    partition.restore(Held(window(1), 5))
    partition.restore(gone((0, 6, 3), b"another"))  # by whoever was here before
    partition.recovered(6)
    read(partition, "new")
    partition.reads(6, T0, {})
    ours = partition.fold("u")
    assert ours is not None
    heir = empty_partition(0)
    for entry in (ours, gone((0, 6, 99)), Held(window(2, revision=98), 6)):
        heir.restore(entry)
    heir.recovered(7)
    assert held_ids(heir) == ours.window.id_hashes()
    # In the next generation there is no need of a higher era, but a lower one would lose, also for
    # whom the changelog does not know.
    assert heir.risen is None
    read(heir, "newer")
    heir.reads(7, T0, {})
    folded = heir.fold("u")
    assert folded is not None
    assert folded.token[:2] == (1, 7)
    assert heir.forget("w", T0, generation=7).token[:2] == (1, 7)


def test_a_risen_era_is_known_to_the_next_owner_though_no_window_was_written_under_it() -> None:
    partition = empty_partition(0)
    partition.restore(Held(window(1), 6))
    partition.recovered(6)
    assert partition.risen is not None
    read(partition, "new")
    partition.reads(6, T0, {})
    zombies = partition.fold("u")  # its vector is on its way to Redis
    assert zombies is not None
    heir = empty_partition(0)
    written = RECORDS.tombstone(0, partition.risen)
    read_back = RECORDS.read(KafkaRecord("", 0, 0, written.key, None, headers=written.headers))
    for entry in (Held(window(1), 6), read_back):
        heir.restore(entry)
    heir.recovered(7)
    read(heir, "new")
    heir.reads(7, T0, {})
    ours = heir.fold("u")
    assert ours is not None
    assert ours.token > zombies.token
    assert list(heir.held) == ["u"]


def test_the_first_generation_of_all_raises_no_era() -> None:
    partition = empty_partition(0)
    partition.recovered(0)  # the embedded broker begins with 0
    read(partition, "new")
    partition.reads(0, T0, {})
    held = partition.fold("u")
    assert held is not None
    assert held.token == (0, 0, 1)
    assert partition.risen is None


def test_a_note_on_a_window_raises_no_era_for_the_sake_of_others() -> None:
    partition = empty_partition(0)
    partition.restore(Held(window(2), 5))
    partition.restore(gone((0, 7, 9), b"another"))
    partition.recovered(8)
    noted = msgspec.structs.replace(partition.window("u"), unresolved=True)
    partition.replace(noted, partition.held["u"].generation)
    assert partition.held["u"].token == (0, 5, 1)


def read(partition: Partition, *event_ids: str, ts: int = T0) -> None:
    """What the intake does with events."""
    for event_id in event_ids:
        event = decode_event(event_json(event_id, ts=ts))
        partition.unfolded.setdefault("u", []).append(event)
    partition.reads(1, T0, {})


def held_ids(partition: Partition) -> set[bytes]:
    return partition.window("u").id_hashes()


def fresh_ids(partition: Partition) -> list[str]:
    return [event_id_of(event) for event in partition.held["u"].fresh]


def test_whoever_looks_at_a_window_folds_what_was_read_first() -> None:
    partition = empty_partition(0)
    read(partition, "a", "b")
    assert partition.unwritten
    assert partition.held == {}
    held = partition.fold("u")
    assert held is not None
    assert held.window.revision == 1
    assert fresh_ids(partition) == ["a", "b"]
    assert partition.unfolded == {}
    assert partition.fold("nobody") is None


def test_what_is_read_while_a_window_is_encoded_survives_every_note_on_it() -> None:
    partition = empty_partition(0)
    read(partition, "a")
    held = partition.fold("u")
    assert held is not None
    shown = msgspec.structs.replace(held)
    read(partition, "b")
    partition.encoded(shown, unresolved=True)
    assert partition.held["u"].sound is not None
    partition.replace(msgspec.structs.replace(partition.held["u"].window, era=4), 1)
    assert held_ids(partition) == {id_hash("a"), id_hash("b")}
    assert fresh_ids(partition) == ["b"]
    assert partition.held["u"].window.era == 4


def test_an_encode_proves_what_it_showed_also_where_more_has_come_since() -> None:
    partition = empty_partition(0)
    read(partition, "a")
    partition.fold("u")
    for event_id in "bcd":
        shown = msgspec.structs.replace(partition.held["u"])
        read(partition, event_id)
        partition.fold("u")
        partition.encoded(shown, unresolved=True)
        assert partition.held["u"].sound is shown.window
        assert fresh_ids(partition) == [event_id]
        assert not partition.window("u").unresolved


def test_an_encode_of_before_a_request_to_forget_proves_nothing() -> None:
    partition = empty_partition(0)
    read(partition, "old", ts=T0)
    read(partition, "new", ts=T0 + 9)
    shown = msgspec.structs.replace(partition.fold("u") or Held(EMPTY, 1))
    partition.forget("u", T0 + 5, generation=1)
    partition.encoded(shown, unresolved=True)
    assert partition.held["u"].sound is None


def test_an_event_that_changes_nothing_is_kept_until_the_window_is_known_to_be_sound() -> None:
    partition = empty_partition(0)
    read(partition, *(f"late {i:02}" for i in range(50)), ts=T0 + 9)
    partition.fold("u")
    read(partition, "early")
    partition.fold("u")
    assert fresh_ids(partition)[-1] == "early"
    partition.encoded(msgspec.structs.replace(partition.held["u"]), unresolved=False)
    assert fresh_ids(partition) == []


def test_what_was_read_before_a_request_to_forget_goes_with_it() -> None:
    partition = empty_partition(0)
    read(partition, "old", ts=T0)
    read(partition, "new", ts=T0 + 9)
    partition.forget("u", T0 + 5, generation=1)
    assert held_ids(partition) == {id_hash("new")}
    assert fresh_ids(partition) == ["new"]
    assert partition.unfolded == {}


def test_events_read_twice_are_claimed_by_who_reads_them_now() -> None:
    partition = empty_partition(0)
    partition.restore(Held(window(1), 1))
    partition.unfolded["u"] = [decode_event(event_json("e0"))]
    partition.reads(5, T0, {})
    held = partition.fold("u")
    assert held is not None
    assert held.token == (0, 5, 1)
    assert "u" in partition.changed
