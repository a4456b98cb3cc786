"""What the documents show of the results, and the paper model behind docs/scaling.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import plot, report, scaling
from benchmarks.event_log import by_zipf
from benchmarks.results import Measurement, Report, Results, load, merge
from benchmarks.scaling import Load, NotMeasured, Place, constants, distinct, plan
from benchmarks.tables import page_of

_MEASURED = {
    scaling.INGEST: 100_000.0,
    scaling.WINDOW: 1_500.0,
    scaling.RECORD: 4_000.0,
    scaling.ENCODE: 20_000.0,
    scaling.REDIS: 2_000.0,
    scaling.UPSERT: 10_000.0,
}


def _row(place: Place, value: float) -> Measurement:
    return Measurement(
        benchmark=place.benchmark, subject=place.subject, name=place.name, unit="", value=value
    )


def _results(tmp_path: Path, without: Place | None = None) -> Results:
    path = tmp_path / "results.json"
    for benchmark in {place.benchmark for place in _MEASURED}:
        rows = [
            _row(place, value)
            for place, value in _MEASURED.items()
            if place.benchmark == benchmark and place != without
        ]
        merge(path, benchmark, Report(tuple(rows)), seconds=1)
    return load(path)


def test_a_text_goes_between_its_markers_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- it: by a command -->\nold\nolder\n<!-- /it -->\nb\n")
    report.fill(page, {"it": r"new \1"})
    assert page.read_text() == "a\n<!-- it: by a command -->\nnew \\1\n<!-- /it -->\nb\n"
    with pytest.raises(ValueError, match="no place for 'other'"):
        report.fill(page, {"other": ""})


def test_the_documents_have_their_markers() -> None:
    for page, names in ((report.README, ["targets"]), (report.SCALING, ["constants", "plan"])):
        for name in names:
            assert page.read_text().count(f"<!-- {name}: ") == 1
            assert page.read_text().count(f"<!-- /{name} -->") == 1


def test_a_page_shows_the_rows_of_the_benchmarks_it_names(tmp_path: Path) -> None:
    names = report.shown_in(report.PERFORMANCE)
    assert {"ingest", "many-users", "scale"} <= set(names)
    row = Measurement(
        benchmark="scale", subject="2 workers", name="rate", unit="events/s", value=2e5,
        runs=(1e5, 2e5, 3e5), ratio=1.8, ratio_to="1 worker",
    )  # fmt: skip
    results = merge(tmp_path / "results.json", "scale", Report((row,)), seconds=1)
    shown = "| 2 workers | rate | 200,000 | events/s | 3: 100,000–300,000 | 1.8 × 1 worker |"
    assert shown in page_of(results, "scale")
    assert page_of(results, "ingest") == "Not measured yet."


def test_a_missed_target_stands_out_and_a_skipped_one_says_why(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    values: dict[str, float | str] = {"process": 9.0, "http": "no server"}
    table = report.targets_table(merge(path, "retrieval", Report((), values), seconds=1))
    assert "| 9 | ms | ≤ 5 | **missed** |" in table
    assert "| – | ms | ≤ 10 | skipped: no server |" in table


def test_the_model_names_what_must_be_measured_first(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="make bench ONLY=user-encode"):
        constants(_results(tmp_path, without=scaling.ENCODE))


def test_the_model_counts_machines_from_what_was_measured(tmp_path: Path) -> None:
    results = _results(tmp_path)
    c = constants(results)._replace(busy=scaling.Constant("", 0.5, "", ""))
    answer = plan(Load(users=1_000_000, events_per_s=1_000_000, items=1_000), c)
    assert answer.intake_cores == 20
    assert answer.partitions == 40
    assert answer.encode_cores == round(1e6 / (20_000 / results.machine.cores * 0.5))
    assert answer.redis_shards == 200
    assert answer.worker_gib == pytest.approx(1.5e9 / 2**30)
    assert answer.redis_gib == pytest.approx(2 * 2e9 / 2**30)


def test_more_users_and_more_events_never_need_less(tmp_path: Path) -> None:
    c = constants(_results(tmp_path))
    small, large = plan(Load(10_000, 100, 1_000), c), plan(Load(20_000, 10_000, 2_000), c)
    assert all(a <= b for a, b in zip(small[:-2], large[:-2], strict=True))
    assert small.on_cores > large.on_cores  # a whole core for a hundred events is dear


def test_a_gpu_that_was_measured_takes_the_place_of_the_assumed_one(tmp_path: Path) -> None:
    _results(tmp_path)
    rows = Report((_row(scaling.ENCODE, 123_456.0),))
    results = merge(tmp_path / "results.json", "user-encode", rows, seconds=1, device="cuda")
    c = constants(results)
    assert c.encode_gpu.value == 123_456.0
    assert c.encode_gpu.source == "measured: `make bench ONLY=user-encode DEVICE=cuda`"
    assert c.encode.value == _MEASURED[scaling.ENCODE]


@pytest.mark.parametrize(("n_events", "n_users"), [(1_000, 500), (20_000, 10_000), (5_000, 10**6)])
def test_distinct_users_are_those_that_are_drawn(n_events: int, n_users: int) -> None:
    drawn = [len(np.unique(by_zipf(n_events, n_users, seed))) for seed in range(5)]
    assert distinct(n_events, n_users) == pytest.approx(np.mean(drawn), rel=0.02)


def test_zipf_gives_the_second_user_half_of_the_first(tmp_path: Path) -> None:
    counts = np.bincount(by_zipf(200_000, 1_000, 0))
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.03)
    assert len(counts) == 1_000


def test_the_plot_shows_what_was_measured_and_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the dependency group bench is not installed")
    path = tmp_path / "results.json"
    rows = [_row(Place("ingest", f"kafka: {kind}", "rate"), 10.0) for kind in ("worker", "bytewax")]
    values: dict[str, float | str] = {"rate": 2e5, "over faust": 20.0}
    results = merge(path, "ingest", Report(tuple(rows), values), seconds=1)
    assert plot.peers(results) == {"Bytewax": 10.0, "this worker": 10.0}
    assert plot.reached(results) == {
        "ingest with windows and checkpoint, one process": 2.0,
        "ingest over a plain Faust table agent": 0.5,
    }
    for name in ("a.svg", "b.svg"):
        plot.draw(results, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_plot_of_nothing_is_empty_and_no_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the dependency group bench is not installed")
    results = merge(tmp_path / "results.json", "encryption", Report(()), seconds=1)
    plot.draw(results, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").exists()
