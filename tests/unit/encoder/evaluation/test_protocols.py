"""Which events are trained on, which are asked for, and what lies before them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.evaluation.dataset import read_dataset
from encoder.evaluation.histories import EVALUATION_LIMITS, histories, item_table
from encoder.evaluation.protocols import global_time, leave_one_out, untied
from interest.errors import BadInput
from interest.window import WindowLimits
from tests.unit.encoder.evaluation.logs import BEAUTY, dataset

_logs = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=8),
    min_size=1,
    max_size=6,
)


def test_leave_one_out_takes_the_last_two_events_of_those_who_have_three() -> None:
    data = dataset([[0, 1, 2, 3], [1, 2]])
    split = leave_one_out(data)
    assert split.train.tolist() == [True, True, False, False, True, True]
    assert (split.validation.users.tolist(), split.validation.places.tolist()) == ([0], [2])
    assert (split.test.users.tolist(), split.test.places.tolist()) == ([0], [3])


def test_global_time_trains_on_nothing_later_than_a_target() -> None:
    data = dataset([list(range(10)), [0, 1]], days=[list(range(10)), [0, 9]])
    split = global_time(data)
    assert data.times_s is not None
    asked = [*split.validation.places.tolist(), *split.test.places.tolist()]
    assert data.times_s[split.train].max() < data.times_s[asked].min()
    assert 11 in split.test.places.tolist()  # the history of day 0


def test_global_time_needs_times() -> None:
    with pytest.raises(BadInput, match="unix_times"):
        global_time(dataset([[0, 1, 2]]))


def test_only_a_target_of_another_day_is_untied() -> None:
    data = dataset([[0, 1, 2], [0, 1, 2]], days=[[1, 1, 2], [1, 2, 2]])
    tied = untied(data, leave_one_out(data).test)
    assert tied is not None
    assert tied.tolist() == [True, False]
    without = dataset([[0, 1, 2]])
    assert untied(without, leave_one_out(without).test) is None


@given(_logs)
def test_the_parts_never_overlap_and_a_history_lies_before_its_target(
    log: list[list[tuple[int, int]]],
) -> None:
    log = [sorted(one, key=lambda event: event[1]) for one in log]
    data = dataset(
        [[item for item, _ in one] for one in log], days=[[day for _, day in one] for one in log]
    )
    for split in (leave_one_out(data), global_time(data)):
        for cases in (split.validation, split.test):
            assert not split.train[cases.places].any()
            assert (data.starts[cases.users] < cases.places).all()
            assert (cases.places < data.starts[cases.users + 1]).all()
        assert not set(split.validation.places.tolist()) & set(split.test.places.tolist())


@given(_logs, st.integers(1, 4), st.booleans())
def test_a_window_holds_the_newest_events_in_the_order_of_the_file(
    log: list[list[tuple[int, int]]], max_events: int, with_times: bool
) -> None:
    """Whatever the items: events of one time stand as the file has them."""
    log = [sorted(one, key=lambda event: event[1]) for one in log]
    items = [[item for item, _ in one] for one in log]
    days = [[day // 20 for _, day in one] for one in log]
    data = dataset(items, days=days if with_times else None)
    cases = leave_one_out(data).test
    limits = WindowLimits(max_events=max_events, span_ms=EVALUATION_LIMITS.span_ms)
    found = list(histories(data, cases, limits, item_table(data)))
    assert len(found) == len(cases)
    for window, user in zip(found, cases.users.tolist(), strict=True):
        assert window.subject_id == f"u{user}"
        before = items[user][:-1][-max_events:]
        assert [number - 1 for number in window.item_numbers()] == before


def test_later_targets_of_a_user_go_on_from_the_earlier_window() -> None:
    data = dataset([list(range(20))], days=[list(range(20))])
    split = global_time(data)
    found = list(histories(data, split.test, EVALUATION_LIMITS, item_table(data)))
    assert [len(window) for window in found] == split.test.places.tolist()


def test_what_lies_beyond_the_span_is_not_in_the_window() -> None:
    data = dataset([[0, 1, 2, 3]], days=[[0, 50, 55, 60]])
    limits = WindowLimits(max_events=50, span_ms=30 * 86_400_000)
    (window,) = histories(data, leave_one_out(data).test, limits, item_table(data))
    assert window.item_numbers() == (2, 3)


@pytest.mark.skipif(not BEAUTY.is_dir(), reason="no Beauty set beside the checkout")
def test_beauty_is_cut_as_published() -> None:
    data = read_dataset(BEAUTY)
    assert (data.n_users, data.n_items, len(data.items)) == (22_363, 12_101, 198_502)
    split = leave_one_out(data)
    tied = untied(data, split.test)
    assert tied is not None
    assert tied.sum() == 12_644
    assert split.train.sum() == 198_502 - 2 * 22_363
    assert np.array_equal(split.test.users, np.arange(22_363))
