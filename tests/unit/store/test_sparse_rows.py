"""Sparse vectors in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import store.sparse_rows
from interest.sparse import EMPTY, SparseVector, dots
from store.sparse_rows import SparseRows

VECTORS = st.dictionaries(st.integers(0, 12), st.floats(-2, 2, width=32).filter(bool), max_size=8)


def vector(numbers: dict[int, float]) -> SparseVector:
    dims = sorted(numbers)
    return SparseVector(
        np.array(dims, np.uint32), np.array([numbers[dim] for dim in dims], np.float32)
    )


@pytest.fixture(autouse=True)
def an_index_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that some rows are in the index and some are not."""
    monkeypatch.setattr(store.sparse_rows, "_FEW", 10)


@given(
    batches=st.lists(st.lists(VECTORS, min_size=1, max_size=6), max_size=6),
    query=VECTORS.filter(bool),
)
def test_scores_are_dot_products_of_the_rows_there_are(
    batches: list[list[dict[int, float]]], query: dict[int, float]
) -> None:
    rows = SparseRows()
    held: list[SparseVector] = []
    for batch in batches:
        some = [vector(numbers) for numbers in batch]
        rows.append(some)
        held += some
        expected = dots(vector(query), held)
        for n in (0, len(held) // 2, len(held)):
            assert rows.scores(vector(query), n) == pytest.approx(expected[:n], abs=1e-6)
    kept = np.array([i for i in range(len(held)) if i % 3], np.intp)
    some_rows = rows.only(kept)
    expected = dots(vector(query), [held[i] for i in kept])
    assert some_rows.scores(vector(query), len(kept)) == pytest.approx(expected, abs=1e-6)
    for row, i in enumerate(kept):
        assert some_rows.get(row).dims.tolist() == held[i].dims.tolist()
        assert some_rows.get(row).values.tolist() == held[i].values.tolist()


def test_equal_rows_have_equal_scores_in_the_index_and_behind_it() -> None:
    rows = SparseRows()
    one = vector({d: 1 / (d + 3) for d in range(10)})
    for _ in range(3):
        rows.append([one])
    assert rows._index.n_rows == 2
    scores = rows.scores(vector({d: 0.1 * d + 0.7 for d in range(12)}), 3)
    assert len(set(scores.tolist())) == 1


def test_rows_without_numbers_cost_nothing_and_score_nothing() -> None:
    rows = SparseRows()
    rows.append([EMPTY, EMPTY])
    assert rows.scores(vector({3: 1.0}), 2).tolist() == [0.0, 0.0]
    assert rows.get(1).n == 0
