from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.items import TextItemEncoder
from encoder.text_encoder import TextEncoder
from interest.item import Item


class Counting:
    """A text encoder that notes what it is asked."""

    dim = 4

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        return np.array([np.eye(4)[len(text) % 4] for text in texts], np.float32).reshape(-1, 4)


@pytest.fixture
def counting() -> Counting:
    return Counting()


def encoder_over(counting: Counting, cached: int = 2) -> TextItemEncoder:
    return TextItemEncoder(counting, cached)  # type: ignore[arg-type]


def test_an_item_is_encoded_by_title_and_description(minilm: TextEncoder) -> None:
    items = TextItemEncoder(minilm)
    lamp = Item(item_id="1", title="Lamp", description="for the floor, of <b>brass</b>")
    rows = items.encode_items([lamp, Item(item_id="2", title="Lamp")])
    expected = minilm.encode(["Lamp for the floor, of brass", "Lamp"])
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert rows[0] @ rows[1] < 0.99


def test_items_of_one_text_are_encoded_once(counting: Counting) -> None:
    items = [Item(item_id=str(i), title=title) for i, title in enumerate(["a", "bb", "a"])]
    rows = encoder_over(counting).encode_items(items)
    assert counting.asked == [["a", "bb"]]
    np.testing.assert_array_equal(rows, np.eye(4)[[1, 2, 1]])


def test_a_query_lies_in_the_space_of_the_items(minilm: TextEncoder) -> None:
    items = TextItemEncoder(minilm)
    titles = ["red coffee mug", "cotton shirt", "brass floor lamp"]
    rows = items.encode_items([Item(item_id=title, title=title) for title in titles])
    nearest = (items.encode_texts(["something to light my room", "tea cup"]) @ rows.T).argmax(1)
    assert nearest.tolist() == [2, 0]


def test_a_query_is_encoded_once(counting: Counting) -> None:
    items = encoder_over(counting)
    first = items.encode_texts(["a", "bb", "a"])
    again = items.encode_texts(["bb", "a"])
    assert counting.asked == [["a", "bb"]]
    np.testing.assert_array_equal(first, np.eye(4)[[1, 2, 1]])
    np.testing.assert_array_equal(again, np.eye(4)[[2, 1]])


def test_the_cache_drops_the_query_that_was_used_least_recently(counting: Counting) -> None:
    items = encoder_over(counting, cached=2)
    for texts in (["a"], ["bb"], ["a"], ["ccc"], ["a"], ["bb"]):
        items.encode_texts(texts)
    assert counting.asked == [["a"], ["bb"], ["ccc"], ["bb"]]


def test_more_queries_than_the_cache_holds_are_all_answered(counting: Counting) -> None:
    texts = ["a" * n for n in range(1, 8)]
    rows = encoder_over(counting, cached=2).encode_texts(texts)
    np.testing.assert_array_equal(rows.argmax(axis=1), [n % 4 for n in range(1, 8)])


def test_a_caller_cannot_change_what_is_cached(counting: Counting) -> None:
    items = encoder_over(counting)
    items.encode_texts(["a"])[:] = 7
    np.testing.assert_array_equal(items.encode_texts(["a"]), np.eye(4)[[1]])


def test_no_queries_give_no_rows(counting: Counting) -> None:
    assert encoder_over(counting).encode_texts([]).shape == (0, 4)


def test_an_empty_query_gives_zeros(minilm: TextEncoder) -> None:
    assert not TextItemEncoder(minilm).encode_texts(["", " "]).any()
