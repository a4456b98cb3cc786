"""A micro-batch as arrays says what its windows say one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoder.behaviours import behaviours, type_weights
from encoder.weighed import Weights
from interest.bundle import DecayParameters
from interest.event import EventType
from interest.window import BehaviourWindow
from tests.unit.encoder.windows import window

PARAMETERS = DecayParameters()
BY_TYPE = type_weights(PARAMETERS.weights)
TYPES = [type_.value for type_ in EventType if type_ is not EventType.IMPRESSION]
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "rating": st.sampled_from([1.0, 2.0, 3.0, 5.0]),
        "dwell_ms": st.sampled_from([10, 60_000]),
        "text": st.sampled_from(["a mug", "a lamp"]),
        "age_h": st.sampled_from([0, 1, 5, 100]),
    },
)
EVENTS = st.lists(
    st.tuples(st.sampled_from(TYPES), st.sampled_from(["mug", "cup", "lamp"]), OTHERS)
    | st.tuples(st.just("search"), st.none(), st.just({"text": "a set"})),
    max_size=12,
)


def said(windows: list[BehaviourWindow]) -> list[tuple[Any, ...]]:
    return [
        (b, found.position, w.event_time_ms - found.event.ts, found.weight, found.event.item_id,
         found.event.text if found.event.item_id is None else None)
        for b, w in enumerate(windows)
        for found in behaviours(w, BY_TYPE, PARAMETERS)
    ]  # fmt: skip


@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_arrays_say_what_windows_say_one_by_one(batch: list[list[Any]]) -> None:
    windows = [window(*events) for events in batch]
    found = Weights(PARAMETERS).of(windows)
    names = [found.names[number] or None for number in found.item.tolist()]
    columns = (found.window, found.position, found.age_ms, found.weight)
    assert said(windows) == [
        (*(column[i].item() for column in columns), names[i], found.text.get(i))
        for i in range(len(names))
    ]


def test_windows_without_events_say_nothing() -> None:
    found = Weights(PARAMETERS).of([window(), window()])
    assert [len(column) for column in found[:5]] == [0] * 5
    assert np.array_equal(found.window, [])
