from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.decay import DecayUserEncoder
from interest.bundle import DecayParameters
from interest.event import EventType
from interest.item import EncodedItem, Item, unit
from interest.window import BehaviourWindow
from tests.unit.encoder.windows import DIM, HOUR_MS, ITEMS, QueryAxis, window

PARAMETERS = DecayParameters(position_decay=0.5, half_life_ms=24 * HOUR_MS)


def encode(
    *windows: BehaviourWindow, parameters: DecayParameters = PARAMETERS
) -> NDArray[np.float32]:
    return DecayUserEncoder(QueryAxis(), parameters).encode(windows, ITEMS)


def test_the_worked_example() -> None:
    """A day ago a purchase of the mug, now a view of the cup, no time between for others.

    weight of the view      0.3 × 0.5⁰ × 0.5^(0 h / 24 h)  = 0.3
    weight of the purchase  1.0 × 0.5¹ × 0.5^(24 h / 24 h) = 0.25
    """
    (row,) = encode(window(("purchase", "mug", {"age_h": 24}), ("view", "cup")))
    np.testing.assert_allclose(row, unit(np.array([0.25, 0.3, 0, 0])), atol=1e-6)
    assert row.dtype == np.float32


def test_only_the_distance_to_the_newest_event_counts() -> None:
    now = window(("purchase", "mug", {"age_h": 5}), ("view", "cup", {"age_h": 0}))
    long_ago = window(("purchase", "mug", {"age_h": 90_005}), ("view", "cup", {"age_h": 90_000}))
    rows = encode(now, long_ago)
    np.testing.assert_array_equal(rows[0], rows[1])


def test_an_unknown_item_is_passed_over_and_keeps_its_place() -> None:
    known = encode(window(("purchase", "mug"), ("purchase", "cup"), ("view", "lamp")))
    unknown = encode(window(("purchase", "mug"), ("purchase", "no such"), ("view", "lamp")))
    assert unknown[0, 1] == 0
    # mug : lamp stays as it was: the unknown item did not move up the mug.
    assert unknown[0, 0] / unknown[0, 2] == pytest.approx(known[0, 0] / known[0, 2], rel=1e-5)


def test_a_return_pushes_away_from_what_is_like_it() -> None:
    without, with_return = encode(
        window(("purchase", "set"), ("view", "lamp")),
        window(("purchase", "set"), ("return", "mug"), ("view", "lamp")),
    )
    mug = ITEMS["mug"].vector
    assert with_return @ mug < without @ mug


@pytest.mark.parametrize(
    "taken_back",
    [("return", "mug"), ("remove", "mug"), ("review", "mug", {"rating": 1.0})],
    ids=["return", "remove", "bad rating"],
)
def test_a_return_outweighs_its_purchase(taken_back: tuple[str, str]) -> None:
    held = window(("cart", "mug"), ("purchase", "mug"), ("view", "cup"), taken_back)
    (row,) = encode(held)
    assert row[0] < 0 < row[1]


@pytest.mark.parametrize(
    "held",
    [
        window(),
        window(("view", "no such"), ("purchase", "nor this")),
        window(("return", "mug"), ("remove", "cup")),
        window(("purchase", "mug"), ("return", "mug")),
        window(("review", "mug", {"rating": 1.0})),
        window(("search", None, {"text": "  "})),
        window(("return", "mug"), ("view", "no such")),
    ],
    ids=["empty", "unknown", "only pushes", "returned", "bad rating", "blank search", "no pull"],
)
def test_a_window_without_a_usable_direction_gives_zeros(held: BehaviourWindow) -> None:
    rows = encode(held, window(("view", "mug")), held)
    assert not rows[0].any()
    assert not rows[2].any()
    np.testing.assert_array_equal(rows[1], [1, 0, 0, 0])


def test_vectors_that_cancel_give_no_direction() -> None:
    opposite = {
        **ITEMS,
        "gum": EncodedItem(item=Item(item_id="gum", title="gum"), vector=-ITEMS["mug"].vector),
    }
    flat = DecayParameters(position_decay=1, half_life_ms=2**62)
    rows = DecayUserEncoder(QueryAxis(), flat).encode(
        [window(("view", "mug"), ("view", "gum"))], opposite
    )
    assert not rows.any()


def test_a_search_without_an_item_is_pooled_by_its_text() -> None:
    (row,) = encode(window(("search", None, {"text": "lamp of brass"}), ("view", "mug")))
    np.testing.assert_allclose(
        row, unit(np.array([0.3, 0, 0, 0.6 * 0.5 * 0.5 ** (1 / 24)])), atol=1e-6
    )


def test_a_search_that_names_an_item_counts_as_that_item() -> None:
    (row,) = encode(window(("search", "mug", {"text": "anything"})))
    np.testing.assert_array_equal(row, [1, 0, 0, 0])


def test_the_searches_of_a_batch_are_encoded_in_one_call_each_once() -> None:
    items = QueryAxis()
    search = window(("search", None, {"text": "b"}), ("search", None, {"text": "a"}))
    DecayUserEncoder(items, PARAMETERS).encode([search, window(("view", "mug")), search], ITEMS)
    assert items.asked == [["a", "b"]]


def test_an_old_event_alone_still_gives_its_direction() -> None:
    """Its weight, 0.5^999 × 0.5^8333, is far below what a float can hold."""
    rest = [("view", "no such")] * 999
    (row,) = encode(window(("purchase", "mug", {"age_h": 200_000}), *rest))
    np.testing.assert_array_equal(row, [1, 0, 0, 0])


def test_an_old_pull_beside_a_fresh_push_still_gives_a_direction() -> None:
    rest = [("view", "no such")] * 999
    (row,) = encode(window(("purchase", "set", {"age_h": 200_000}), *rest, ("return", "mug")))
    assert row @ ITEMS["set"].vector > 0.8
    assert row @ ITEMS["mug"].vector < ITEMS["set"].vector @ ITEMS["mug"].vector


SIGNED = st.tuples(
    st.sampled_from([t.value for t in EventType if t is not EventType.IMPRESSION]),
    st.sampled_from([*ITEMS, "no such"]),
    st.fixed_dictionaries(
        {}, optional={"rating": st.floats(0, 5), "dwell_ms": st.integers(0, 5_000)}
    ),
)
WINDOWS = st.lists(SIGNED, max_size=8).map(lambda events: window(*events))


@settings(deadline=None)  # the machine may be busy
@given(WINDOWS)
def test_a_vector_never_points_away_from_what_the_user_liked(held: BehaviourWindow) -> None:
    (row,) = encode(held)
    limited = DecayParameters(position_decay=0.5, half_life_ms=24 * HOUR_MS, push_limit=0)
    (pull,) = encode(held, parameters=limited)
    assert row.any() == pull.any()
    # |push| ≤ |pull| / 2, so the angle between them is at most arcsin(1/2).
    assert not row.any() or row @ pull >= np.cos(np.pi / 6) - 1e-5


@settings(deadline=None)  # the machine may be busy
@given(st.lists(WINDOWS, min_size=1, max_size=6))
def test_a_vector_does_not_depend_on_the_batch(windows: list[BehaviourWindow]) -> None:
    together = encode(*windows)
    alone = np.concatenate([encode(held) for held in windows])
    np.testing.assert_array_equal(together, alone)
    lengths = np.linalg.norm(together, axis=1)
    assert all(length == pytest.approx(1) or length == 0 for length in lengths)


def test_the_sum_is_made_in_float64_whatever_the_batch_and_the_order_of_the_items() -> None:
    """At the size of a real model, against a sum by hand."""
    draw = np.random.default_rng(3)
    items = {
        f"i{i}": EncodedItem(
            item=Item(item_id=f"i{i}", title="x"), vector=unit(draw.standard_normal(384))
        )
        for i in range(60)
    }
    windows = [
        window(*[("view", f"i{draw.integers(60)}") for _ in range(n)])
        for n in (50, 1, 17, 50, 3, 33, 8, 50)
    ]
    encoder = DecayUserEncoder(QueryAxis(), PARAMETERS)
    together = encoder.encode(windows, items)
    for i, held in enumerate(windows):
        newest_first = [items[str(event.item_id)].vector for event in reversed(held.events)]
        by_hand = sum(
            v.astype(np.float64) * 0.5**position * 0.5 ** (position / 24)
            for position, v in enumerate(newest_first)
        )
        np.testing.assert_allclose(together[i], unit(np.asarray(by_hand)), rtol=0, atol=1e-7)
    backwards = dict(reversed(items.items()))
    alone = np.concatenate([encoder.encode([held], backwards) for held in reversed(windows)])
    np.testing.assert_array_equal(together, alone[::-1])


def test_an_empty_batch_gives_no_rows() -> None:
    assert encode().shape == (0, DIM)


def test_the_cost_of_a_window_is_its_events_and_the_text_of_its_searches() -> None:
    encoder = DecayUserEncoder(QueryAxis(), PARAMETERS)
    assert encoder.n_tokens(window()) == 0
    assert encoder.n_tokens(window(("view", "mug"), ("view", "no such"))) == 2
    assert encoder.n_tokens(window(("search", None, {"text": "x" * 40}))) == 11


@pytest.mark.parametrize(
    "wrong",
    [{"position_decay": 0.0}, {"position_decay": 1.5}, {"half_life_ms": 0}, {"push_limit": 1.0}],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="decay parameters"):
        DecayParameters(**wrong)  # type: ignore[arg-type]
