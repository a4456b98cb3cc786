"""How a recorded log is paced."""

from __future__ import annotations

import itertools

import pytest

from interest.errors import InvalidEvent
from streams.publish import Outgoing, _batches, outgoing_events, outgoing_items
from tests.unit.streams.fakes import T0, event_json


def records(*seconds: float) -> list[Outgoing]:
    return [Outgoing(b"", "u", int(T0 + s * 1000)) for s in seconds]


def due(*seconds: float, speed: float) -> list[float]:
    batches = list(_batches(records(*seconds), speed))
    return [round(batch.due_s - batches[0].due_s, 3) for batch in batches]


def test_recorded_times_are_kept_and_divided_by_the_speed() -> None:
    assert due(0, 10, 20, speed=1) == [0, 10, 20]
    assert due(0, 10, 20, speed=100) == [0, 0.1, 0.2]


def test_an_even_flow_is_never_held_back_into_one_batch() -> None:
    batches = list(_batches(records(*(i * 0.02 for i in range(50))), 1.0))
    assert [len(batch.records) for batch in batches] == [1] * 50
    gaps = [b.due_s - a.due_s for a, b in itertools.pairwise(batches)]
    assert gaps == pytest.approx([0.02] * 49)


def test_what_is_due_together_goes_out_together() -> None:
    assert [len(b.records) for b in _batches(records(0, 0, 0.001, 5, 5), 1.0)] == [3, 2]


def test_a_log_that_steps_back_in_time_does_not_wait() -> None:
    assert due(0, 10, 3, 11, speed=1) == [0, 10, 11]


def test_as_fast_as_possible_fills_batches() -> None:
    batches = list(_batches(records(*range(2_500)), "max"))
    assert [len(batch.records) for batch in batches] == [1_000, 1_000, 500]


def test_a_broken_record_is_reported_and_goes_out_without_a_key() -> None:
    found: list[InvalidEvent] = []
    sent = list(outgoing_events([event_json("a"), b"{"], found.append))
    assert [record.key for record in sent] == ["u", None]
    assert [error.reason for error in found] == ["malformed_json"]
    sent = list(outgoing_items([b'{"item_id":"i"}'], found.append))
    assert (sent[0].key, found[1].reason) == (None, "missing_title")
