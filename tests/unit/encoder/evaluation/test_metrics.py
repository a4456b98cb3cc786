"""Slices, coverage and intervals."""

from __future__ import annotations

import numpy as np

from encoder.evaluation.metrics import (
    bootstrap_means,
    coverage,
    difference,
    popularity_thirds,
    slices,
    summary,
)
from encoder.evaluation.protocols import leave_one_out
from tests.unit.encoder.evaluation.logs import dataset


def test_each_third_holds_about_a_third_of_the_events_and_equal_items_stay_together() -> None:
    counts = np.array([6, 3, 3, 2, 2, 1, 1, 0])
    assert popularity_thirds(counts).tolist() == [0, 1, 1, 2, 2, 2, 2, 2]
    assert popularity_thirds(np.array([4, 4, 4])).tolist() == [0, 0, 0]
    assert popularity_thirds(np.zeros(3, np.int64)).tolist() == [0, 0, 0]


def test_slices_know_cold_items_and_short_histories_by_training_events() -> None:
    data = dataset([[0] * 7 + [1, 0], [0, 2, 1], [1, 0, 2]], days=[[0] * 9, [0, 0, 1], [0, 0, 0]])
    split = leave_one_out(data)
    cut = slices(data, split, split.test)
    assert cut.untied is not None
    assert cut.untied.tolist() == [False, True, False]
    assert cut.by_name["cold item"].tolist() == [False, True, True]
    assert cut.by_name["short history"].tolist() == [False, True, True]


def test_coverage_counts_what_is_among_anybodys_first_ten() -> None:
    best = np.full((2, 20), -1, np.int32)
    best[0, :3], best[1, :2], best[1, 10] = [0, 1, 2], [2, 3], 9
    assert coverage(best, 8) == 0.5


def test_a_summary_of_no_target_is_nan() -> None:
    assert np.isnan(summary(np.zeros(0))["ndcg@10"])


def test_the_interval_of_a_difference_is_that_of_the_difference() -> None:
    """Two noisy columns that differ by a constant: the difference has no noise at all."""
    noise = np.random.default_rng(1).normal(size=500)
    values = np.stack([noise, noise - 0.25], axis=1)
    means = bootstrap_means(values, np.arange(500))
    found = difference(values, means, 0, 1)
    np.testing.assert_allclose(found, (0.25, 0.25, 0.25))
    assert found.is_clear


def test_the_interval_covers_what_theory_says() -> None:
    values = np.random.default_rng(2).normal(size=(400, 1))
    means = bootstrap_means(values, np.arange(400))
    np.testing.assert_allclose(means.std(), values.std() / 20, rtol=0.1)
    np.testing.assert_allclose(means.mean(), values.mean(), atol=0.01)


def test_a_user_is_drawn_with_all_of_his_targets() -> None:
    """Ten targets that say the same are no ten times the evidence."""
    values = np.random.default_rng(3).normal(size=(200, 1))
    once = bootstrap_means(values, np.arange(200))
    tenfold = bootstrap_means(np.repeat(values, 10, axis=0), np.repeat(np.arange(200), 10))
    np.testing.assert_allclose(once, tenfold)


def test_the_seed_decides_the_draws() -> None:
    values = np.random.default_rng(4).normal(size=(50, 2))
    users = np.arange(50) // 2
    np.testing.assert_array_equal(bootstrap_means(values, users), bootstrap_means(values, users))
    assert (bootstrap_means(values, users, seed=1) != bootstrap_means(values, users)).any()
