"""The size of a micro-batch follows what the device does."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.batch_size import BatchSize

BUDGET = 16_384


def trained(fixed_s: float, token_s: float, *, n: int = 40, target_s: float = 0.06) -> BatchSize:
    """Learn from users of 50 tokens each, alone and many together."""
    size = BatchSize(BUDGET, target_s)
    for i in range(n):
        n_users = 1 + i % 20
        size.observe(n_users, 50 * n_users, fixed_s + token_s * 50 * n_users)
    return size


def test_before_anything_is_measured_the_budget_is_all_there_is() -> None:
    assert BatchSize(BUDGET, 0.05).limit(1_000_000) == BUDGET
    assert not BatchSize(BUDGET, 0.05).is_full(1_000_000)


def test_a_batch_takes_a_third_of_the_target() -> None:
    size = trained(fixed_s=0.002, token_s=20e-6)
    assert size.limit(1) == pytest.approx((0.020 - 0.002) / 20e-6, rel=0.01)


def test_where_many_wait_throughput_counts_and_not_the_target() -> None:
    size = trained(fixed_s=0.002, token_s=20e-6)
    assert size.limit(50) < BUDGET  # 2,500 tokens, 52 ms
    assert size.limit(60) == BUDGET  # 3,000 tokens, 62 ms: the last is late anyhow
    assert not size.is_full(60)
    assert size.is_full(BUDGET // 50 + 1)


def test_a_device_that_is_slow_to_start_gets_batches_that_are_worth_it() -> None:
    size = trained(fixed_s=0.025, token_s=20e-6)
    assert size.limit(1) == pytest.approx(0.025 / 20e-6, rel=0.01)


def test_a_device_whose_speed_changes_is_followed() -> None:
    size = trained(fixed_s=0.002, token_s=20e-6)
    before = size.limit(1)
    for i in range(200):
        n_users = 1 + i % 20
        size.observe(n_users, 50 * n_users, 0.002 + 40e-6 * 50 * n_users)
    assert size.limit(1) == pytest.approx(before / 2, rel=0.05)


def test_batches_of_one_size_are_taken_for_cost_of_tokens() -> None:
    size = BatchSize(BUDGET, 0.06)
    for _ in range(10):
        size.observe(1, 50, 0.001)
    assert size.limit(1) == pytest.approx(0.020 / 0.001 * 50, rel=0.01)


MEASURED = st.tuples(st.integers(1, 500), st.floats(0, 60))


@given(st.lists(MEASURED, max_size=50), st.integers(0, 10**6))
@example([(1, 5e-324)], 0)
def test_whatever_is_measured_a_batch_has_at_least_a_token_and_at_most_the_budget(
    batches: list[tuple[int, float]], n_waiting: int
) -> None:
    size = BatchSize(BUDGET, 0.05)
    for n_users, seconds in batches:
        size.observe(n_users, 7 * n_users, seconds)
    assert 1 <= size.limit(n_waiting) <= BUDGET
