from __future__ import annotations

import numpy as np
import pytest
import torch

from encoder.decay import DecayUserEncoder
from encoder.factory import sequence_encoders
from encoder.parts import Parts
from encoder.sequence_weights import loaded_sequence
from interest.bundle import DecayParameters, TextPart
from interest.encoded_items import EncodedItems
from interest.item import Item, unit
from tests.unit.encoder.test_sequence import Texts
from tests.unit.encoder.test_sequence_model import DIM, lively
from tests.unit.encoder.windows import window

PARTS = Parts(3, 2, 0.25)
RNG = np.random.default_rng(0)


def rows(n: int, dim: int) -> np.ndarray:
    return unit(RNG.normal(size=(n, dim)))


def test_a_dot_product_is_the_weighted_sum_of_two_cosines() -> None:
    users, items = (rows(4, 3), rows(4, 2)), (rows(5, 3), rows(5, 2))
    found = PARTS.join(*users) @ PARTS.join(*items).T
    assert np.allclose(
        found, 0.75 * users[0] @ items[0].T + 0.25 * users[1] @ items[1].T, atol=1e-6
    )


def test_parts_come_apart_again_and_half_a_vector_has_unit_length() -> None:
    one, other = rows(4, 3), rows(4, 2)
    joined = PARTS.join(one, other)
    assert np.allclose(PARTS.sequence(joined), one, atol=1e-6)
    assert np.allclose(PARTS.text(joined), other, atol=1e-6)
    alone = PARTS.join(one, np.zeros((4, 2), np.float32))
    assert np.allclose(np.linalg.norm(alone, axis=1), 1)
    assert not PARTS.join(np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float32)).any()


ITEMS = [Item(item_id=name, title=f"{name} of tin") for name in ("mug", "cup", "lamp")]
LOADED = loaded_sequence(lively(n_items=1), ("lamp",))
DECAY = DecayParameters()
CPU = torch.device("cpu")


def encoders(share: float) -> tuple[EncodedItems, np.ndarray]:
    from msgspec.structs import replace

    described = replace(LOADED.described, text=TextPart(dim=4, share=share))
    items, users = sequence_encoders(described, DECAY, LOADED, Texts(), CPU)
    known = EncodedItems(ITEMS, items.encode_items(ITEMS))
    windows = [
        window(("click", "mug"), ("purchase", "lamp")),
        window(("search", None, {"text": "cup of tea"})),
        window(("return", "mug")),
        window(),
    ]
    assert users.n_tokens(windows[0]) == 2
    assert users.dim == items.dim == DIM + 4
    return known, users.encode(windows, known)


def test_each_part_of_a_user_is_that_of_its_own_encoder() -> None:
    known, vectors = encoders(0.4)
    parts = Parts(DIM, 4, 0.4)
    plain_items, plain_users = sequence_encoders(LOADED.described, DECAY, LOADED, Texts(), CPU)
    plain = EncodedItems(ITEMS, plain_items.encode_items(ITEMS))
    windows = [window(("click", "mug"), ("purchase", "lamp"))]
    assert np.allclose(parts.sequence(vectors[:1]), plain_users.encode(windows, plain), atol=1e-6)

    class Cut(Texts):
        dim = 4

    texts = EncodedItems(ITEMS, unit(Texts().encode_items(ITEMS)[:, :4]))
    decayed = DecayUserEncoder(Cut(), DECAY).encode(windows, texts)
    assert np.allclose(parts.text(vectors[:1]), decayed, atol=1e-6)
    assert np.allclose(parts.text(known.vectors), texts.vectors, atol=1e-6)


def test_a_query_is_read_by_both_and_what_pushes_away_gives_no_direction() -> None:
    _, vectors = encoders(0.4)
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.allclose(lengths, [1, 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_leaves_a_part_without_weight_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        TextPart(dim=4, share=share)
