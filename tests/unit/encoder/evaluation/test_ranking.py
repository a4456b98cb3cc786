"""Ranks, masks and ties, by the definition spelled out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.evaluation.metrics import ndcg, recall
from encoder.evaluation.protocols import leave_one_out
from encoder.evaluation.ranking import Chunk
from tests.unit.encoder.evaluation.logs import dataset


def chunk(*sequences: list[int], n_items: int, order: list[int] | None = None) -> Chunk:
    data = dataset(sequences, n_items=n_items)
    columns = np.arange(n_items) if order is None else np.array(order)
    return Chunk(data, leave_one_out(data).test, columns)


def test_items_of_the_history_are_left_out_and_the_target_is_not() -> None:
    ranked = chunk([0, 1, 2], n_items=4).rank(np.array([[9, 8, 5, 7]], np.float32))
    assert ranked.ranks.tolist() == [1]
    assert ranked.unmasked_ranks.tolist() == [3]
    assert ranked.best[0, :3].tolist() == [3, 2, -1]


def test_a_target_that_is_bought_again_stays_in_the_ranking() -> None:
    ranked = chunk([2, 1, 2], n_items=3).rank(np.array([[1, 3, 2]], np.float32))
    assert ranked.ranks.tolist() == [0]
    assert ranked.unmasked_ranks.tolist() == [1]


def test_tied_scores_count_half() -> None:
    ranked = chunk([0, 1, 2], n_items=5).rank(np.zeros((1, 5), np.float32))
    assert ranked.ranks.tolist() == [1]  # two others are equal, and not left out
    assert ranked.unmasked_ranks.tolist() == [2]


def test_the_order_of_the_file_does_not_decide_between_equal_items() -> None:
    scores = np.zeros((1, 5), np.float32)
    ranked = chunk([0, 1, 2], n_items=5, order=[4, 2, 0, 1, 3]).rank(scores)
    assert sorted(ranked.best[0, :3].tolist()) == [2, 3, 4]
    assert ranked.best.shape == (1, 20)


def test_nan_is_refused() -> None:
    with pytest.raises(FloatingPointError):
        chunk([0, 1, 2], n_items=3).rank(np.array([[0, np.nan, 1]], np.float32))


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 6), min_size=3, max_size=6),
            st.lists(st.integers(-2, 2), min_size=7, max_size=7),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_ranks_are_those_of_the_definition(rows: list[tuple[list[int], list[int]]]) -> None:
    scores = np.array([row for _, row in rows], np.float32)
    ranked = chunk(*[log for log, _ in rows], n_items=7).rank(scores.copy())
    for i, (log, row) in enumerate(rows):
        target = log[-1]
        others = [s for item, s in enumerate(row) if item != target and item not in log[:-1]]
        expected = sum(s > row[target] for s in others) + sum(s == row[target] for s in others) / 2
        assert ranked.ranks[i] == expected
        best = [item for item in ranked.best[i].tolist() if item >= 0]
        assert set(best) == {item for item in range(7) if item not in log[:-1] or item == target}
        assert [row[item] for item in best] == sorted((row[item] for item in best), reverse=True)


def test_gains_are_those_of_the_definition() -> None:
    ranks = np.array([0, 1, 4, 5, 0.5])
    assert recall(ranks, 5).tolist() == [1, 1, 1, 0, 1]
    np.testing.assert_allclose(
        ndcg(ranks, 5), [1, 1 / np.log2(3), 1 / np.log2(6), 0, 1 / np.log2(2.5)]
    )
