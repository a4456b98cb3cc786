"""What is read while an array grows."""

from __future__ import annotations

import numpy as np

from store.append_array import AppendArray


def test_what_was_read_stays_as_it_was_however_much_is_appended() -> None:
    array = AppendArray(np.int32, 2)
    array.append(np.array([[1, 2], [3, 4]]))
    early = array.first(2)
    for i in range(100):
        array.append(np.full((7, 2), i))
    assert early.tolist() == [[1, 2], [3, 4]]
    assert len(array) == 702
    assert array.first(2).tolist() == early.tolist()
    assert array.first(702)[-1].tolist() == [99, 99]
    assert array.first(702)[2:].tolist() == [[i, i] for i in range(100) for _ in range(7)]


def test_an_empty_append_and_an_empty_array_are_fine() -> None:
    array = AppendArray(np.float32)
    assert array.first(0).tolist() == []
    array.append(np.empty(0))
    assert (len(array), array.n_bytes) == (0, 0)
