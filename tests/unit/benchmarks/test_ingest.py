"""What the ingest benchmark makes of its runs, and what its peers do with an event."""

from __future__ import annotations

import pytest

from benchmarks import ingest
from benchmarks.event_log import events, full_windows
from benchmarks.ingest_job import FULL, WINDOW, Run, slid
from interest.event import decode_event


def _run(events_per_s: float, **fields: float) -> Run:
    return Run(n_events=1_000, wall_s=1_000 / events_per_s, cpu_s=0.1, **fields)  # type: ignore[arg-type]


def test_a_ratio_is_of_medians_of_the_same_rounds() -> None:
    runs: ingest.Runs = {
        "worker": [_run(100_000), _run(90_000), _run(500_000)],
        "faust table": [_run(2_000), _run(1_000), _run(2_500)],
    }
    values = ingest._values(runs)
    assert values["rate"] == pytest.approx(100_000)
    assert values["over faust"] == pytest.approx(50)


def test_where_a_commit_is_known_its_rate_counts_on_both_sides() -> None:
    runs: ingest.Runs = {
        "worker": [_run(100_000, committed_s=1_000 / 80_000)],
        "bytewax": [_run(50_000, committed_s=1_000 / 40_000)],
        "bare loop": [_run(160_000)],
    }
    values = ingest._values(runs)
    assert values["rate"] == pytest.approx(80_000)
    assert values["over bytewax"] == pytest.approx(2)
    assert values["over bare"] == pytest.approx(0.5)


def test_a_peer_that_is_absent_costs_its_own_target_alone() -> None:
    runs: ingest.Runs = {
        "worker": [_run(100_000)],
        "bytewax": "the peers could not be installed",
        "bare loop": [_run(200_000)],
    }
    values = ingest._values(runs)
    assert values["over bytewax"] == "the peers could not be installed"
    assert values["over quix"] == "not run"
    assert values["over bare"] == pytest.approx(0.5)
    rows = {(row.subject, row.name): row for row in ingest._rows("kafka", runs)}
    assert rows["kafka: bytewax", "rate"].skipped == "the peers could not be installed"
    assert rows["kafka: worker", "rate"].ratio is None


def test_without_the_broker_every_target_says_so() -> None:
    values = ingest._values(dict.fromkeys(ingest.KINDS, "no Apache Kafka"))
    assert set(values.values()) == {"no Apache Kafka"}


def test_a_peer_keeps_the_last_fifty_from_a_full_window_on() -> None:
    own = [decode_event(raw) for _, raw in events(WINDOW + 1)]
    window = None
    for event in own[:2]:
        window = slid(window, event)
        assert len(window) == WINDOW
    assert window is not None
    assert window[:-2] == list(FULL[2:])
    for event in own[2:]:
        window = slid(window, event)
    assert [kept[0] for kept in window] == [event.event_id for event in own[1:]]


def test_full_windows_are_older_than_the_log_so_that_each_event_pushes_one_out() -> None:
    first = decode_event(next(events(1))[1])
    window = next(full_windows(WINDOW, n_users=1))
    assert len(window.events) == WINDOW
    assert max(event.ts for event in window.events) < first.ts
