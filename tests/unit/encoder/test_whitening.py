from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.decay import DecayUserEncoder
from encoder.whitening import WhitenedItemEncoder, Whitening
from interest.bundle import DecayParameters
from interest.encoded_items import EncodedItems
from interest.errors import BadInput
from interest.item import Item, unit
from tests.unit.encoder.windows import window

_random = np.random.default_rng(0)
#: A common direction, and axes of very different strength.
VECTORS = unit(np.array([3.0, 0, 0, 0]) + _random.normal(size=(500, 4)) * [0.1, 1, 0.5, 0.25])


class FirstLetter:
    """A text vector by the first letter; an empty text says nothing."""

    dim = 4

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        return self.encode_texts([item.text for item in items])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([VECTORS[ord(text[0])] if text else np.zeros(4) for text in texts]).astype(
            np.float32
        )


def test_full_whitening_makes_all_axes_alike() -> None:
    whitening = Whitening.fit(VECTORS, power=0.5)
    spread = (VECTORS - whitening.mean) @ whitening.axes * whitening.scales
    np.testing.assert_allclose(np.cov(spread, rowvar=False), np.eye(4), atol=0.1)


def test_half_whitening_leaves_the_root_of_each_axis() -> None:
    """The variance of an axis is λ before, λ^½ after."""
    whitening = Whitening.fit(VECTORS, power=0.25)
    spread = (VECTORS - whitening.mean) @ whitening.axes * whitening.scales
    eigenvalues = np.linalg.eigvalsh(np.cov(VECTORS, rowvar=False))[::-1]
    np.testing.assert_allclose(spread.var(axis=0, ddof=1), np.sqrt(eigenvalues), rtol=0.1)


def test_few_items_are_hardly_whitened() -> None:
    """Whitened in full, five points in four dimensions would all be equally far apart."""
    few = VECTORS[:5]
    cosines = Whitening.fit(few, power=0.5).apply(few) @ Whitening.fit(few, power=0.5).apply(few).T
    centred = unit(few - few.mean(axis=0))
    assert np.corrcoef(cosines.ravel(), (centred @ centred.T).ravel())[0, 1] > 0.9
    assert cosines[~np.eye(5, dtype=bool)].std() > 0.2


def test_what_comes_out_has_unit_length_and_nothing_stays_nothing() -> None:
    whitening = Whitening.fit(VECTORS)
    rows = whitening.apply(np.concatenate([VECTORS, np.zeros((1, 4), np.float32)]))
    np.testing.assert_allclose(np.linalg.norm(rows[:-1], axis=1), 1, atol=1e-6)
    assert not rows[-1].any()
    assert rows.dtype == np.float32


def test_rows_of_zeros_are_no_part_of_the_fit() -> None:
    padded = np.concatenate([VECTORS, np.zeros((50, 4), np.float32)])
    np.testing.assert_array_equal(Whitening.fit(padded).mean, Whitening.fit(VECTORS).mean)


def test_only_the_strongest_axes_are_kept_and_never_those_of_rounding() -> None:
    assert Whitening.fit(VECTORS, dim=2).apply(VECTORS).shape == (500, 2)
    flat = VECTORS.copy()
    flat[:, 3] = 0
    assert Whitening.fit(flat).dim == 3
    few = VECTORS[:3]  # three points span two axes
    assert Whitening.fit(few).dim == 2


def test_it_can_be_stored() -> None:
    whitening = Whitening.fit(VECTORS, dim=3)
    again = Whitening.of_arrays(whitening.arrays())
    np.testing.assert_array_equal(again.apply(VECTORS), whitening.apply(VECTORS))
    with pytest.raises(BadInput, match="without its array axes"):
        Whitening.of_arrays({"mean": whitening.mean, "scales": whitening.scales})
    with pytest.raises(BadInput, match="expected"):
        Whitening.of_arrays({**whitening.arrays(), "scales": whitening.scales[:2]})


def test_nothing_can_be_spread_of_one_text() -> None:
    for vectors in (np.zeros((5, 4), np.float32), np.tile(VECTORS[:1], (5, 1))):
        with pytest.raises(BadInput, match="two different texts"):
            Whitening.fit(vectors)


def test_decay_works_on_whitened_items_as_on_any() -> None:
    texts = FirstLetter()
    whitening = Whitening.fit(VECTORS, dim=3)
    encoder = WhitenedItemEncoder(texts, whitening)
    items = [Item(item_id="mug", title="mug"), Item(item_id="cup", title="cup")]
    vectors = encoder.encode_items(items)
    np.testing.assert_array_equal(vectors, whitening.apply(texts.encode_items(items)))
    users = DecayUserEncoder(encoder, DecayParameters())
    both, query = users.encode(
        [
            window(("view", "mug"), ("view", "cup")),
            window(("search", None, {"text": "lamp"})),
        ],
        EncodedItems(items, vectors),
    )
    assert both.shape == (3,)
    np.testing.assert_allclose(query, encoder.encode_texts(["lamp"])[0], atol=1e-6)


def test_a_whitening_of_another_model_is_refused() -> None:
    with pytest.raises(BadInput, match="fit it again"):
        WhitenedItemEncoder(FirstLetter(), Whitening.fit(VECTORS[:, :3]))
