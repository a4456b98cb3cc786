"""Recovery and ownership of windows."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from interest.event import decode_event
from interest.window import BehaviourWindow, WindowLimits, fold, window_to_bytes
from streams.windows import Partition
from tests.unit.streams.fakes import event_json

EMPTY = BehaviourWindow(subject_id="u")


def window(n: int, *, era: int = 0, revision: int = 1) -> BehaviourWindow:
    folded = fold(EMPTY, [decode_event(event_json(f"e{i}")) for i in range(n)], WindowLimits())
    return msgspec.structs.replace(folded, era=era, revision=revision)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_recovery_keeps_the_highest_token_whatever_was_written_last(order: tuple[int, ...]) -> None:
    records = [
        window_to_bytes(window(1, revision=90), generation=1),  # a zombie, far ahead in revisions
        window_to_bytes(window(2, revision=3), generation=2),
        window_to_bytes(window(3, revision=4), generation=2),
        window_to_bytes(window(4, era=1, revision=2), generation=1),  # after a group reset
    ]
    partition = Partition(0)
    for i in order:
        partition.restore(records[i])
    assert len(partition.window("u").events) == 4
    counts = partition.popular.top(10, 7)
    fresh = Partition(0)
    fresh.restore(records[3])
    assert counts == fresh.popular.top(10, 7)


def test_a_group_that_counts_anew_outranks_its_own_past() -> None:
    partition = Partition(0)
    partition.restore(window_to_bytes(window(1, revision=9), generation=57))
    partition.replace(window(2, revision=10), generation=1)  # the group was deleted
    assert partition.held["u"].token == (1, 1, 10)
    partition.replace(window(3, era=1, revision=11), generation=1)
    assert partition.held["u"].token == (1, 1, 11)
    fresh = Partition(0)
    fresh.restore(window_to_bytes(partition.window("u"), 1))
    fresh.restore(window_to_bytes(window(1, revision=9), generation=57))
    assert len(fresh.window("u").events) == 3


def test_a_changed_window_remembers_what_the_changelog_has() -> None:
    partition = Partition(0)
    partition.restore(window_to_bytes(window(1), 1))
    before = partition.window("u")
    partition.replace(window(2, revision=2), 2)
    partition.replace(window(3, revision=3), 2)
    assert partition.changed == {"u": before}
    assert partition.held["u"].token == (0, 2, 3)
