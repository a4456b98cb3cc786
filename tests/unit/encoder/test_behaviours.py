from __future__ import annotations

import pytest

from encoder.behaviours import behaviours, type_weights
from interest.bundle import DecayParameters, TypeWeights
from interest.event import EventType
from interest.window import BehaviourWindow
from tests.unit.encoder.windows import window

PARAMETERS = DecayParameters()
BY_TYPE = type_weights(PARAMETERS.weights)


def said(held: BehaviourWindow) -> list[tuple[int, str, float]]:
    """Position, type and weight of the behaviours that count."""
    return [
        (position, event.type.value, weight)
        for position, event, weight in behaviours(held, BY_TYPE, PARAMETERS)
    ]


def test_every_type_of_behaviour_has_a_weight_and_an_impression_has_none() -> None:
    assert set(BY_TYPE) == set(EventType) - {EventType.IMPRESSION}
    assert BY_TYPE[EventType.RETURN] == -1
    assert type_weights(TypeWeights(return_=-3))[EventType.RETURN] == -3


def test_the_newest_comes_first_and_has_position_zero() -> None:
    assert said(window(("view", "mug"), ("purchase", "cup"))) == [
        (0, "purchase", 1.0),
        (1, "view", 0.3),
    ]


@pytest.mark.parametrize(
    "last",
    [("return", "mug"), ("remove", "mug"), ("review", "mug", {"rating": 2.0})],
    ids=["return", "remove", "bad rating"],
)
def test_what_pushes_takes_back_what_was_done_with_the_item_before(last: tuple[str, str]) -> None:
    held = window(("view", "mug"), ("purchase", "mug"), ("view", "cup"), last)
    assert [(position, weight > 0) for position, _, weight in said(held)] == [(0, False), (1, True)]


def test_what_is_done_after_a_return_counts_again() -> None:
    held = window(("purchase", "mug"), ("return", "mug"), ("purchase", "mug"))
    assert said(held) == [(0, "purchase", 1.0), (1, "return", -1.0)]


def test_several_returns_of_one_item_push_once() -> None:
    assert len(said(window(("return", "mug"), ("return", "mug")))) == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rating": 2.0}, -1.0),
        ({"rating": 0.0}, -1.0),
        ({"rating": 2.5}, 1.0),
        ({}, 1.0),
        ({"dwell_ms": 1}, 1.0),  # a dwell belongs to views and clicks
    ],
)
def test_a_bad_rating_turns_the_weight_round(fields: dict[str, float], expected: float) -> None:
    assert said(window(("review", "mug", fields))) == [(0, "review", expected)]


@pytest.mark.parametrize(
    ("dwell_ms", "expected"), [(0, 0.09), (1_999, 0.09), (2_000, 0.3), (None, 0.3)]
)
def test_a_bounce_weighs_less(dwell_ms: int | None, expected: float) -> None:
    ((_, _, weight),) = said(window(("view", "mug", {"dwell_ms": dwell_ms})))
    assert weight == pytest.approx(expected)


def test_an_impression_and_a_weight_of_zero_do_not_count() -> None:
    silent = type_weights(TypeWeights(view=0))
    held = window(("view", "mug"), ("impression", "cup"), ("click", "lamp"))
    counted = list(behaviours(held, silent, PARAMETERS))
    assert [(b.position, b.event.item_id) for b in counted] == [(0, "lamp")]
