"""The scan over codes gives what a scan over the vectors gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from store.exact_scan import _estimates, coded, kernel, nearest

DIM = 6
#: Few values, so that many scores tie; and magnitudes that quantise badly side by side.
NUMBERS = st.sampled_from([-1.0, -0.5, 0.0, 1e-3, 0.25, 0.5, 1.0, 1e-30, 100.0])


@st.composite
def matrices(draw: st.DrawFn, least: int, most: int) -> NDArray[np.float32]:
    shape = (draw(st.integers(least, most)), DIM)
    drawn = draw(arrays(np.float32, shape, elements=NUMBERS.map(np.float32)))
    drawn[~drawn.any(axis=1), 0] = 1.0
    return drawn


def exact(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    dots = np.einsum("rd,qd->rq", vectors.astype(np.float64), queries.astype(np.float64))
    scores: NDArray[np.float32] = dots.max(axis=1).astype(np.float32)
    return scores


@given(vectors=matrices(1, 60), queries=matrices(1, 3), k=st.integers(1, 12), data=st.data())
def test_the_best_rows_are_those_of_an_exhaustive_scan(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.sets(st.integers(0, len(vectors) - 1)))
    rows = np.array(sorted(chosen), np.intp)
    found = nearest(queries, k, rows, vectors, coded(vectors))
    scores = exact(queries, vectors)
    least = np.sort(scores[rows])[-k:].min() if len(rows) else 0
    expected = {int(row) for row in rows if scores[row] >= least}
    assert set(found.rows.tolist()) == expected
    assert found.scores.tolist() == scores[found.rows].tolist()


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1], ids=["all", "many", "few"])
def test_no_row_is_lost_to_the_codes(share: float) -> None:
    """Among 3,000 rows near each other the codes alone would give other ten for most queries."""
    rng = np.random.default_rng(1)
    vectors = (1 + 0.01 * rng.normal(size=(3_000, 16))).astype(np.float32)
    rows = np.flatnonzero(rng.random(len(vectors)) < share)
    held = coded(vectors)
    n_other = 0
    for query in rng.normal(size=(50, 1, 16)).astype(np.float32):
        scores = exact(query, vectors)[rows]
        best = rows[np.argsort(-scores)[:10]].tolist()
        assert sorted(nearest(query, 10, rows, vectors, held).rows.tolist()) == sorted(best)
        estimates, _ = _estimates(query, rows, held)
        n_other += set(rows[np.argsort(-estimates)[:10]].tolist()) != set(best)
    assert n_other > 25, "else this proves nothing"


@given(vectors=matrices(1, 40), queries=matrices(1, 3))
def test_no_estimate_errs_by_more_than_the_margin(
    vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    estimates, margin = _estimates(queries, np.arange(len(vectors)), coded(vectors))
    assert np.abs(estimates - exact(queries, vectors)).max() <= margin


@pytest.mark.parametrize("dim", [1, 3, 31, 32, 33, 64, 384, 1024])
def test_the_kernel_multiplies_exactly_also_the_extremes(dim: int) -> None:
    rng = np.random.default_rng(dim)
    a = rng.integers(-127, 128, (3, dim)).astype(np.int8)
    b = rng.integers(-127, 128, (50, dim)).astype(np.int8)
    a[0], b[0], b[1] = -127, -127, 127
    dots = np.asarray(kernel()(a, b, "dot"))
    assert dots.tolist() == (a.astype(np.int64) @ b.astype(np.int64).T).tolist()


def test_few_rows_near_the_best_are_scored_from_their_vectors() -> None:
    """The estimate must be good enough that the second look is at dozens, not thousands."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20_000, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[:5].mean(axis=0, keepdims=True)
    estimates, margin = _estimates(query, np.arange(len(vectors)), coded(vectors))
    least = np.partition(estimates, -10)[-10] - 2 * margin
    assert np.count_nonzero(estimates >= least) < 100
