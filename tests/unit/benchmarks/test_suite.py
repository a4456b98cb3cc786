"""The benchmark suite's own logic: rows, targets, and what becomes of a benchmark that fails."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks import tables
from benchmarks.results import Measurement, Report, failed, load, merge
from benchmarks.suite import BENCHMARKS, Benchmark, run_all, run_one
from benchmarks.targets import GOALS, Goal, complete, judged

_FOLDER = Path(benchmarks.__file__).parent
_GOALS = (
    Goal("a", "rate", "a's rate", "events/s", "≥", 10),
    Goal("b", "p99", "b's p99", "ms", "≤", 5),
    Goal("b", "share", "b's share", "", "≥", 0.7, "padded"),
    Goal("b", "padded", "b over padded", "×", "≥", 5, "share"),
)


def _row(benchmark: str, value: float = 1.0) -> Measurement:
    return Measurement(benchmark=benchmark, subject="it", name="rate", unit="1/s", value=value)


def test_a_tie_with_the_bound_is_met() -> None:
    assert judged("a", {"rate": 10.0}, goals=_GOALS)[0].met
    assert not judged("a", {"rate": 9.99}, goals=_GOALS)[0].met
    assert judged("b", {"p99": 5.0}, goals=_GOALS)[0].met
    assert not judged("b", {"p99": 5.01}, goals=_GOALS)[0].met


@pytest.mark.parametrize("met", ["share", "padded"])
def test_one_of_two_alternatives_meets_both(met: str) -> None:
    values: dict[str, float | str] = {"p99": 9.0, "share": 0.1, "padded": 1.0, met: 100.0}
    assert [t.met for t in judged("b", values, goals=_GOALS)] == [False, True, True]


def test_a_goal_without_a_value_says_why_and_is_not_met() -> None:
    p99, share, padded = judged("b", {"p99": "no Kafka here"}, goals=_GOALS)
    assert (p99.value, p99.met, p99.skipped) == (None, False, "no Kafka here")
    assert not share.met
    assert not padded.met
    assert tables.verdict(p99) == "skipped: no Kafka here"


def test_a_value_for_a_goal_that_is_none_is_an_error() -> None:
    with pytest.raises(KeyError, match="p98"):
        judged("b", {"p98": 1.0}, goals=_GOALS)


def test_the_table_has_every_goal_in_order_and_other_devices_last() -> None:
    gone = judged("a", {"rate": 3.0}, goals=(Goal("a", "rate", "old name", "", "≥", 1),))
    on_cuda = judged("a", {"rate": 70.0}, "cuda", goals=_GOALS)
    rows = complete([*on_cuda, *judged("b", {"p99": 1.0}, goals=_GOALS), *gone], _GOALS)
    assert [row.name for row in rows] == [goal.name for goal in _GOALS] + ["a's rate (cuda)"]
    assert rows[0].skipped == "not measured"
    assert rows[1].value == 1.0
    assert rows[-1].benchmark == "a (cuda)"


def test_goals_are_named_once_and_belong_to_benchmarks() -> None:
    assert len({goal.name for goal in GOALS}) == len(GOALS)
    assert {goal.benchmark for goal in GOALS} <= set(BENCHMARKS)
    own = {(goal.benchmark, goal.key) for goal in GOALS}
    assert all((goal.benchmark, goal.instead) in own for goal in GOALS if goal.instead)


def test_a_run_replaces_its_own_rows_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    merge(path, "ingest", Report((_row("ingest"),), {"rate": 2e5}), seconds=1)
    merge(path, "retrieval", Report((_row("retrieval"),), {"http": 3.0}), seconds=1)
    merge(path, "ingest", Report((_row("ingest", 7.0),)), seconds=1)
    held = load(path)
    assert [(row.benchmark, row.value) for row in held.measurements] == [
        ("retrieval", 1.0),
        ("ingest", 7.0),
    ]
    by_name = {target.name: target for target in held.targets}
    assert by_name["top 10 of 100k items over HTTP, p99"].met
    assert by_name["ingest with windows and checkpoint, one process"].skipped == "not measured"
    assert set(held.ran) == {"ingest", "retrieval"}


def test_rows_of_another_device_stand_beside_those_of_the_processor(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    merge(path, "user-encode", Report((_row("user-encode"),), {"text": 300.0}), seconds=1)
    report = Report((_row("user-encode", 9.0),), {"text": 900.0})
    held = merge(path, "user-encode", report, seconds=1, device="cuda")
    assert [row.value for row in held.of("user-encode")] == [1.0]
    assert [row.value for row in held.of("user-encode (cuda)")] == [9.0]
    values = {target.name: target.value for target in held.targets}
    assert values["user encode over the text-window method"] == 300.0
    assert values["user encode over the text-window method (cuda)"] == 900.0


def test_the_file_has_what_its_readers_expect(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    merge(path, "ingest", Report((_row("ingest"),), {"rate": 1.0}), seconds=2.5)
    held = json.loads(path.read_text())
    assert {"machine", "commit", "measurements", "targets"} <= set(held)
    assert len(held["targets"]) == len(GOALS)
    assert {"name", "value", "unit", "target", "met"} <= set(held["targets"][0])
    assert held["ran"]["ingest"]["seconds"] == 2.5


def _registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **modules: str
) -> dict[str, Benchmark]:
    """Write modules that stand for benchmarks; their names are those of real ones."""
    for name, text in modules.items():
        (tmp_path / f"suite_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return {name: Benchmark(f"suite_{name}", "", 1) for name in modules}


_GOOD = """
from benchmarks.results import Measurement, Report
def run(arguments):
    row = Measurement(benchmark="x", subject="s", name="n", unit="u", value=float(len(arguments)))
    return Report((row,))
"""


def test_a_benchmark_that_raises_leaves_the_others_rows_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    registry = _registry(
        tmp_path, monkeypatch, encryption=_GOOD, ingest="def run(arguments): raise OSError('gone')"
    )
    assert run_one("encryption", ["--x"], path=path, registry=registry) == 0
    assert run_one("ingest", [], path=path, registry=registry) == 1
    held = load(path)
    assert [row.value for row in held.of("encryption")] == [1.0]
    assert [row.skipped for row in held.of("ingest")] == ["failed: OSError: gone"]
    rate = held.targets[0]
    assert not rate.met
    assert tables.verdict(rate) == "failed: OSError: gone"


def test_a_benchmark_whose_module_is_missing_fails(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    registry = {"ingest": Benchmark("suite_of_no_such_name", "", 1)}
    assert run_one("ingest", [], path=path, registry=registry) == 1
    assert "suite_of_no_such_name" in load(path).of("ingest")[0].skipped


def test_a_failure_has_a_word_on_every_target_of_its_benchmark() -> None:
    report = failed("retrieval", "no")
    assert report.values == {"process": "failed: no", "http": "failed: no"}


def test_all_are_run_though_one_dies_or_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    killed = "import os\ndef run(arguments): os.kill(os.getpid(), 9)"
    hangs = "import threading\ndef run(arguments): threading.Event().wait()"
    registry = _registry(
        tmp_path, monkeypatch, ingest=killed, retrieval=hangs, encryption=_GOOD,
        freshness="def run(arguments): raise OSError('gone')",
    )  # fmt: skip
    registry["retrieval"] = Benchmark("suite_retrieval", "", 1 / 60)
    # The children ask for their module by the name in this registry, too.
    (tmp_path / "suite_child.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom benchmarks.suite import Benchmark, run_one\n"
        "name = sys.argv[1]\nregistry = {name: Benchmark(f'suite_{name}', '', 1)}\n"
        f"sys.exit(run_one(name, [], path=Path({str(path)!r}), registry=registry))\n"
    )
    here = f"{tmp_path}:{_FOLDER.parent}"
    monkeypatch.setenv("PYTHONPATH", here)
    assert run_all(path=path, registry=registry, child="suite_child") == 1
    held = load(path)
    assert "exit code -9" in held.of("ingest")[0].skipped
    assert "not done after 5 s" in held.of("retrieval")[0].skipped
    assert held.of("freshness")[0].skipped == "failed: OSError: gone"
    assert held.of("encryption")[0].value == 0.0
    shown = capfd.readouterr()
    assert "FAILED: ingest, retrieval, freshness" in shown.err
    assert "of 20 targets met, 20 skipped" in shown.out


def test_the_suite_itself_needs_the_standard_library_alone() -> None:
    for name in ("__main__", "suite", "results", "targets", "machine", "tables", "plot"):
        for node in ast.walk(ast.parse((_FOLDER / f"{name}.py").read_text())):
            roots = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for root in (module.partition(".")[0] for module in roots):
                # The plot asks for matplotlib as it is drawn; without it there is none.
                known = {"benchmarks", "matplotlib"} if name == "plot" else {"benchmarks"}
                assert root in known or root in sys.stdlib_module_names, (name, root)


def test_a_name_that_is_none_is_refused_with_the_names_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "no-such"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "many-users" in done.stderr


def test_numbers_are_shown_with_three_digits_that_count() -> None:
    shown = [tables.number(v) for v in (123456.7, 1000, 12, 12.345, 0.0456)]
    assert shown == ["123,457", "1,000", "12", "12.3", "0.0456"]


def test_a_skipped_row_says_why(tmp_path: Path) -> None:
    row = Measurement(benchmark="ingest", subject="kafka", name="rate", unit="", skipped="absent")
    held = merge(tmp_path / "results.json", "ingest", Report((row,)), seconds=1)
    assert "skipped: absent" in tables.measurements(held, "ingest")
