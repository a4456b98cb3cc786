"""Sparse vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interest.errors import CorruptRecord
from interest.sparse import (
    EMPTY,
    LINKS_FROM,
    SparseVector,
    dots,
    sparse_from_bytes,
    sparse_to_bytes,
)

NUMBERS = st.dictionaries(
    st.integers(0, 9) | st.integers(LINKS_FROM, LINKS_FROM + 9) | st.just(2**32 - 1),
    st.floats(-2, 2, width=32),
    max_size=12,
)


def vector(numbers: dict[int, float]) -> SparseVector:
    dims = sorted(numbers)
    return SparseVector(
        np.array(dims, np.uint32), np.array([numbers[dim] for dim in dims], np.float32)
    )


@given(NUMBERS)
def test_bytes_give_the_same_vector_back(numbers: dict[int, float]) -> None:
    found = sparse_from_bytes(sparse_to_bytes(vector(numbers)))
    assert dict(zip(found.dims.tolist(), found.values.tolist(), strict=True)) == numbers


@given(NUMBERS, st.lists(NUMBERS, max_size=4))
def test_dot_products_are_those_of_the_dense_form(
    query: dict[int, float], others: list[dict[int, float]]
) -> None:
    expected = [sum(value * other.get(dim, 0) for dim, value in query.items()) for other in others]
    assert dots(vector(query), list(map(vector, others))) == pytest.approx(expected, abs=1e-5)


def test_terms_and_links_are_weighed_apart() -> None:
    both = vector({3: 1.0, LINKS_FROM: 2.0, LINKS_FROM + 1: -1.0})
    weighed = both.weighed(0.5, 2)
    assert weighed.dims.tolist() == both.dims.tolist()
    assert weighed.values.tolist() == [0.5, 4.0, -2.0]
    assert both.weighed(0, 1).dims.tolist() == [LINKS_FROM, LINKS_FROM + 1]
    assert EMPTY.weighed(1, 1).n == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"1234567",
        sparse_to_bytes(vector({1: float("nan")})),
        sparse_to_bytes(SparseVector(np.array([2, 1], np.uint32), np.ones(2, np.float32))),
        sparse_to_bytes(SparseVector(np.array([1, 1], np.uint32), np.ones(2, np.float32))),
    ],
)
def test_what_is_no_sparse_vector_is_refused(raw: bytes) -> None:
    with pytest.raises(CorruptRecord):
        sparse_from_bytes(raw)
