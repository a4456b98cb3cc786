"""The port UserEncoder over the sequence model: what of a window it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encoder.sequence import SequenceItemEncoder, SequenceUserEncoder
from encoder.sequence_weights import LoadedSequence, random_sequence
from interest.encoded_items import EncodedItems
from interest.errors import EncoderUnavailable
from interest.item import EncodedItem, Item
from interest.window import BehaviourWindow
from tests.unit.encoder.test_sequence_model import DIM, lively
from tests.unit.encoder.windows import window

TITLES = {"mug": "red mug", "cup": "blue cup", "lamp": "brass lamp"}


class Texts:
    """Text vectors that depend on the letters; an empty text has none."""

    dim = 8

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        return self.encode_texts([item.text for item in items])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [
            np.random.default_rng(list(text.encode())).normal(size=8) * bool(text.strip())
            for text in texts
        ]
        return np.array(rows, np.float32).reshape(-1, 8)


MODEL = lively(n_items=1)
ITEMS = SequenceItemEncoder(
    Texts(), LoadedSequence(MODEL, ("lamp",), random_sequence(0, text_dim=8, dim=DIM).described)
)
USERS = SequenceUserEncoder(ITEMS, MODEL, torch.device("cpu"), bad_rating=2.0)


def known(*item_ids: str) -> dict[str, EncodedItem]:
    items = [Item(item_id=item_id, title=TITLES[item_id]) for item_id in item_ids]
    vectors = ITEMS.encode_items(items)
    return {i.item_id: EncodedItem(item=i, vector=v) for i, v in zip(items, vectors, strict=True)}


KNOWN = known(*TITLES)


def encode(*windows: BehaviourWindow, items: Any = KNOWN) -> NDArray[np.float32]:
    return USERS.encode(windows, items)


def test_a_user_is_the_models_output_for_the_items_in_order() -> None:
    held = window(("click", "mug"), ("click", "lamp"))
    vectors = np.stack([KNOWN["mug"].vector, KNOWN["lamp"].vector])
    gap_of_an_hour = 1 + (3600).bit_length()
    code = 1 * 12  # a click without a rating
    codes = torch.tensor([[code * 33, code * 33 + gap_of_an_hour]])
    expected = MODEL(torch.from_numpy(vectors)[None], codes)[0, -1].numpy()
    assert np.allclose(encode(held)[0], expected, atol=1e-6)


def test_a_mapping_and_a_table_of_items_give_the_same() -> None:
    held = window(("click", "mug"), ("click", "lamp"))
    assert np.array_equal(encode(held), encode(held, items=EncodedItems.of(KNOWN)))


@pytest.mark.parametrize(
    "other",
    [
        ("view", "mug"),
        ("click", "cup"),
        ("click", "mug", {"rating": 4.5}),
        ("click", "mug", {"age_h": 0.9}),
    ],
)
def test_type_item_rating_and_gap_matter(other: Any) -> None:
    one = window(("view", "lamp", {"age_h": 1}), ("click", "mug", {"age_h": 0}))
    two = window(("view", "lamp", {"age_h": 1}), (*other[:2], {"age_h": 0, **dict(*other[2:])}))
    assert not np.allclose(encode(one), encode(two), atol=1e-3)


def test_ratings_of_the_same_half_point_are_the_same_and_no_rating_is_not_zero() -> None:
    def rated(rating: float) -> NDArray[np.float32]:
        return encode(window(("purchase", "mug"), ("review", "cup", {"rating": rating})))

    assert np.array_equal(rated(4.1), rated(4.0))
    assert not np.allclose(rated(5.0), rated(4.5), atol=1e-3)
    assert not np.allclose(
        rated(0.0), encode(window(("purchase", "mug"), ("review", "cup"))), atol=1e-3
    )


def test_the_wall_clock_does_not_matter() -> None:
    now = window(("click", "mug", {"age_h": 1}), ("click", "lamp", {"age_h": 0}))
    then = window(("click", "mug", {"age_h": 9001}), ("click", "lamp", {"age_h": 9000}))
    assert np.array_equal(encode(now), encode(then))


def test_an_unknown_item_is_passed_over() -> None:
    with_it = window(("click", "mug"), ("click", "nobody knows"), ("click", "lamp", {"age_h": 0}))
    without = window(("click", "mug", {"age_h": 2}), ("click", "lamp", {"age_h": 0}))
    assert np.array_equal(encode(with_it), encode(without))
    assert not encode(window(("click", "nobody knows"))).any()
    assert not encode(window(("click", "mug")), items={}).any()


@pytest.mark.parametrize(
    "held",
    [
        window(),
        window(("return", "mug")),
        window(("remove", "mug"), ("return", "cup")),
        window(("review", "mug", {"rating": 2.0})),
        window(("search", None, {"text": " "})),
    ],
)
def test_a_window_that_only_pushes_away_gives_no_direction(held: BehaviourWindow) -> None:
    rows = encode(held, window(("click", "mug")))
    assert not rows[0].any()
    assert np.isclose(np.linalg.norm(rows[1]), 1)


def test_a_search_without_an_item_is_read_by_its_text() -> None:
    held = window(("search", None, {"text": "red mug"}))
    same_item = window(("search", "mug"))
    assert np.allclose(encode(held), encode(same_item), atol=1e-6)
    assert np.allclose(encode(held, items={}), encode(same_item), atol=1e-6)
    assert USERS.n_tokens(held) == 1 + len("red mug") // 4


def test_an_embedded_item_differs_from_its_text() -> None:
    lamp = Item(item_id="lamp", title=TITLES["lamp"])
    other = Item(item_id="another", title=TITLES["lamp"])
    seen, unseen = ITEMS.encode_items([lamp, other])
    assert not np.allclose(seen, unseen, atol=1e-3)
    assert np.allclose(unseen, ITEMS.encode_texts([lamp.text])[0])


def test_nan_never_leaves() -> None:
    sick = KNOWN | {
        "cup": EncodedItem(item=KNOWN["cup"].item, vector=np.full(DIM, np.nan, np.float32))
    }
    well = window(("click", "mug"))
    with pytest.raises(FloatingPointError):
        encode(window(("click", "cup")), well, items=sick)
    assert np.array_equal(encode(well, items=sick), encode(well))


def test_a_failing_gpu_is_unavailable_and_a_bug_on_a_cpu_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def encode(self, *_: object) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    users = SequenceUserEncoder(ITEMS, MODEL, torch.device("cpu"), bad_rating=2.0)
    monkeypatch.setattr(users, "_runner", Broken())
    with pytest.raises(RuntimeError, match="illegal"):
        users.encode([window(("click", "mug"))], KNOWN)
    monkeypatch.setattr(users, "_device", torch.device("cuda"))
    with pytest.raises(EncoderUnavailable, match=r"device cuda failed: .* encountered$"):
        users.encode([window(("click", "mug"))], KNOWN)
