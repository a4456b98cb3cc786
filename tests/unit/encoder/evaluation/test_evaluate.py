"""Rankers and targets in, rows out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.evaluation.evaluate import best_by_user, buys_again, comparisons, evaluate, table
from encoder.evaluation.histories import EVALUATION_LIMITS
from encoder.evaluation.protocols import leave_one_out
from interest.window import BehaviourWindow
from tests.unit.encoder.evaluation.logs import dataset


class NextRow:
    """Scores the item after the newest one highest: right for logs that count up."""

    def __init__(self, n_items: int, step: int = 1) -> None:
        self._n_items = n_items
        self._step = step
        self.sizes: list[int] = []

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        self.sizes.append(len(windows))
        row = np.zeros((len(windows), self._n_items), np.float32)
        for i, window in enumerate(windows):
            row[i, (window.item_numbers()[-1] - 1 + self._step) % self._n_items] = 1
        return row


LOG = [[0, 1, 2, 3], [4, 5, 6, 7], [2, 3], [1, 2, 3, 4]]
DAYS = [[0, 1, 2, 3], [0, 1, 2, 2], [0, 0], [0, 0, 0, 1]]


def test_a_ranker_that_knows_is_first_everywhere() -> None:
    data = dataset(LOG, n_items=30, days=DAYS)
    found = evaluate(data, leave_one_out(data), "test", {"knows": NextRow(30)}, EVALUATION_LIMITS)
    (row,) = table(found)
    assert row["recall@5"] == row["ndcg@10"] == row["untied_ndcg@10"] == 1
    assert "unmasked_ndcg@10" not in row
    best = best_by_user(found, "knows")
    assert best.dtype == np.int32
    assert best[:, 0].tolist() == [3, 7, -1, 4]
    assert (best[2] == -1).all()  # a user without a target


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(LOG, n_items=30, days=DAYS)
    split = leave_one_out(data)
    whole = evaluate(data, split, "test", {"row": NextRow(30, 2)}, EVALUATION_LIMITS)
    monkeypatch.setattr("encoder.evaluation.ranking.CHUNK_SCORES", 60)
    ranker = NextRow(30, 2)
    seen: list[tuple[int, int]] = []
    cut = evaluate(
        data, split, "test", {"row": ranker}, EVALUATION_LIMITS, lambda *done: seen.append(done)
    )
    assert ranker.sizes == [2, 1]
    assert seen == [(2, 3), (3, 3)]
    for ours, theirs in zip(cut.rows["row"], whole.rows["row"], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_both_ways_are_reported_where_people_buy_again() -> None:
    data = dataset([[0, 1, 2, 1], [0, 1, 2, 3]], n_items=6)
    cases = leave_one_out(data).test
    assert buys_again(data, cases).tolist() == [True, False]
    found = evaluate(data, leave_one_out(data), "test", {"row": NextRow(6, -1)}, EVALUATION_LIMITS)
    (row,) = table(found)
    assert row["unmasked_recall@5"] <= row["recall@5"] == 1
    assert "untied_ndcg@10" not in row  # no times


def test_rows_are_compared_over_all_and_over_untied_targets() -> None:
    data = dataset([[0, 1, 2, 3]] * 20, n_items=30, days=[[0, 1, 2, 2]] * 10 + [[0, 1, 2, 3]] * 10)
    rankers = {"wrong": NextRow(30, 7), "knows": NextRow(30)}
    found = comparisons(evaluate(data, leave_one_out(data), "test", rankers, EVALUATION_LIMITS))
    assert [(one.ours, one.theirs, one.over) for one in found] == [
        ("knows", "wrong", "all"),
        ("knows", "wrong", "untied"),
    ]
    assert all(one.difference.mean > 0 and one.difference.is_clear for one in found)


def test_several_seeds_are_one_row_of_means() -> None:
    data = dataset(LOG, n_items=30, days=DAYS)
    rankers = {"ours/0": NextRow(30), "other": NextRow(30, 7), "ours/1": NextRow(30, 2)}
    ranked = evaluate(data, leave_one_out(data), "test", rankers, EVALUATION_LIMITS)
    found = ranked._replace(runs={"ours": ["ours/0", "ours/1"]})
    ours, other = table(found)
    assert (ours["name"], other["name"]) == ("ours", "other")
    first, second = ours["runs"]
    assert (first["name"], first["recall@5"]) == ("ours/0", 1)
    for figure in ("recall@5", "ndcg@10", "untied_ndcg@10", "coverage@10"):
        assert ours[figure] == pytest.approx((first[figure] + second[figure]) / 2)
    assert ours["slices"]["short history"] == pytest.approx(ours["ndcg@10"])
    assert {(one.ours, one.theirs) for one in comparisons(found)} == {("other", "ours")}
    difference = comparisons(found)[0].difference
    assert difference.mean == pytest.approx(other["ndcg@10"] - ours["ndcg@10"])
    np.testing.assert_array_equal(best_by_user(found, "ours"), best_by_user(ranked, "ours/0"))
