from __future__ import annotations

import numpy as np
import pytest

from encoder.loading import load_text_encoder
from encoder.text_encoder import TextEncoder
from encoder.window_text import TextUserEncoder
from interest.bundle import DecayParameters
from interest.window import BehaviourWindow
from tests.unit.encoder.tiny_models import Tiny
from tests.unit.encoder.windows import ITEMS, window


@pytest.fixture(scope="module")
def encoder(tiny: Tiny) -> TextUserEncoder:
    return TextUserEncoder(load_text_encoder(str(tiny("bert")), device="cpu"), DecayParameters())


def test_a_window_is_written_newest_first_with_type_title_and_text(
    encoder: TextUserEncoder,
) -> None:
    held = window(
        ("search", None, {"text": "something to drink from"}),
        ("view", "cup"),
        ("view", "no such"),
        ("review", "mug", {"rating": 5.0, "text": "I like it"}),
        ("return", "lamp"),
    )
    assert encoder.text_of(held, ITEMS) == (
        "return: brass lamp.\nreview: red mug — I like it.\nview: blue cup.\n"
        "search: something to drink from"
    )


@pytest.mark.parametrize(
    "held",
    [
        window(),
        window(("view", "no such")),
        window(("return", "mug"), ("remove", "cup")),
        window(("purchase", "mug"), ("return", "mug")),
    ],
    ids=["empty", "unknown", "only pushes", "returned"],
)
def test_a_window_without_a_usable_direction_gives_zeros(
    held: BehaviourWindow, encoder: TextUserEncoder
) -> None:
    assert not encoder.encode([held], ITEMS).any()


def test_a_vector_does_not_depend_on_the_batch(minilm: TextEncoder) -> None:
    encoder = TextUserEncoder(minilm, DecayParameters())
    windows = [
        window(("view", "mug")),
        window(),
        window(*[("purchase", item_id) for item_id in ITEMS] * 12),
        window(("search", None, {"text": "红色马克杯"}), ("click", "cup")),
    ]
    together = encoder.encode(windows, ITEMS)
    alone = np.concatenate([encoder.encode([held], ITEMS) for held in windows])
    shown = together.any(axis=1)
    assert shown.tolist() == [True, False, True, True]
    assert (together[shown] * alone[shown]).sum(axis=1).min() >= 0.9999
    np.testing.assert_array_equal(alone[1], 0)


def test_what_lies_beyond_the_models_limit_is_the_oldest(encoder: TextUserEncoder) -> None:
    newest = [("view", "mug")] * 10
    rows = encoder.encode([window(("view", "cup"), *newest), window(*newest)], ITEMS)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    rows = encoder.encode([window(*newest, ("view", "cup")), window(*newest)], ITEMS)
    assert rows[0] @ rows[1] < 0.999


def test_the_cost_of_a_window_grows_to_the_models_limit(encoder: TextUserEncoder) -> None:
    assert encoder.n_tokens(window()) == 0
    assert encoder.n_tokens(window(("view", "mug"))) == 12
    assert encoder.n_tokens(window(*[("view", "mug")] * 50)) == 24
