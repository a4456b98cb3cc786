"""`make evaluate`: what it writes, and the README's table of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.quality_table import quality_table

_FIGURES = {"recall@5": 0.05, "ndcg@5": 0.04, "recall@10": 0.11, "ndcg@10": 0.062}
_MACHINE = {"cpu": "a processor", "cores": 2, "python": "3.11"}


def _written(tmp_path: Path, untied: float | None) -> Path:
    figures: dict[str, object] = {**_FIGURES, "untied_ndcg@10": untied}
    ours = figures | {"name": "one-vector", "seeds": [0, 1], "minutes": 6.5}
    rows = [ours, figures | {"name": "ease", "seeds": [], "minutes": 0.0}]
    found = {"rows": rows, "targets": {"all": 1234}, "machine": _MACHINE, "commit": "abc"}
    path = tmp_path / "quality.json"
    path.write_text(json.dumps(found))
    return path


def test_a_row_stands_beside_what_it_is_meant_to_reach(tmp_path: Path) -> None:
    table = quality_table(_written(tmp_path, 0.041))
    assert "| one-vector | .0500 | .0400 | .1100 | .0620 | .0410 | 2 | 6.5 | " in table
    assert ".105 / .060 / .039: met |" in table
    assert "| ease | .0500 | .0400 | .1100 | .0620 | .0410 | – | – |  |" in table
    assert "1,234 targets" in table
    assert "**missed**" in quality_table(_written(tmp_path, 0.038))


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    assert quality_table(tmp_path / "none.json") == "Not measured yet."
    assert "| one-vector | .0500 | .0400 | .1100 | .0620 | – | 2 | 6.5 |  |" in quality_table(
        _written(tmp_path, None)
    )


def test_without_data_one_line_says_where_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert quality.main([]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "github.com/RUCAIBox/CIKM2020-S3Rec" in said


def test_a_wrong_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quality.main([str(tmp_path / "none"), "--bundle", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
