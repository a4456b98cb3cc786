from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoder.spans import spread


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5))))
def test_spans_lie_one_after_the_other(spans: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in spans], np.int64)
    lengths = np.array([length for _, length in spans], np.int64)
    owner, place = spread(starts, lengths)
    assert list(zip(owner.tolist(), place.tolist(), strict=True)) == [
        (i, start + k) for i, (start, length) in enumerate(spans) for k in range(length)
    ]
