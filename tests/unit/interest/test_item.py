"""The catalogue contract, and the encoded form."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from interest.errors import BadInput, CorruptRecord, InvalidItem
from interest.item import (
    EncodedItem,
    Item,
    ItemQuery,
    decode_item,
    encode_item,
    encoded_item_from_bytes,
    encoded_item_to_bytes,
    unit,
)

ITEM = Item(
    item_id="i", title="Mug", description="red", brand="b", categories=("a", "c"), price=2.5
)


def test_an_item_survives_a_round_trip() -> None:
    assert decode_item(encode_item(ITEM)) == ITEM


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"item_id":"i"}', "missing_title"),
        (b'{"item_id":"i","title":""}', "missing_title"),
        (b'{"item_id":"i","title":"  "}', "missing_title"),
        (b'{"title":"t"}', "schema"),
        (b'{"item_id":"i","title":"t","price":-1}', "schema"),
        (b"{", "malformed_json"),
        (b'{"item_id":"\xff","title":"t"}', "not_utf8"),
    ],
)
def test_each_broken_item_has_its_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidItem) as caught:
        decode_item(raw)
    assert caught.value.reason == reason


def test_an_encoded_item_survives_a_round_trip() -> None:
    encoded = EncodedItem(item=ITEM, vector=unit(np.array([1, 2, 3])))
    after = encoded_item_from_bytes(encoded_item_to_bytes(encoded))
    assert after.item == ITEM
    assert np.array_equal(after.vector, encoded.vector)


def test_an_encoded_item_without_unit_length_is_refused() -> None:
    bad = EncodedItem(item=ITEM, vector=np.array([3, 0], np.float32))
    with pytest.raises(CorruptRecord, match="unit length"):
        encoded_item_from_bytes(encoded_item_to_bytes(bad))
    with pytest.raises(CorruptRecord):
        encoded_item_from_bytes(b"nonsense")


def test_unit_scales_rows_and_leaves_zero_rows() -> None:
    rows = unit(np.array([[3, 4], [0, 0]]))
    assert np.allclose(rows, np.array([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize(
    "rows", [np.zeros((1, 2)), np.array([[np.nan, 1]]), np.zeros((0, 2)), np.ones(2)]
)
def test_a_query_without_direction_is_refused(rows: NDArray[np.float64]) -> None:
    with pytest.raises(BadInput):
        ItemQuery(vectors=rows.astype(np.float32))
