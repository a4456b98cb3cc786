"""`interest evaluate`, on a log that is small enough to encode."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from interest.errors import BadInput
from interest_cli.main import app

_KINDS = ("red mug", "green tea", "brass lamp", "silk scarf", "oak table")


def folder(tmp_path: Path, *, titles: bool = True, times: bool = True) -> Path:
    """Forty users who each stay with one of five kinds of product."""
    rows = [f"i{kind}-{n}\t{name} no {n}" for kind, name in enumerate(_KINDS) for n in range(6)]
    random = np.random.default_rng(0)
    lines = []
    for user in range(40):
        ids = [f"i{user % 5}-{n}" for n in random.permutation(6)[:5]]
        days = " ".join(str(1_600_000_000 + 86_400 * (n - n % 2)) for n in range(5))
        lines.append("\t".join([f"u{user}", " ".join(ids), *([days] if times else [])]))
    if not titles:
        rows = [row.split("\t")[0] for row in rows]
    header = "\t".join(["user_id", "item_ids", *(["unix_times"] if times else [])])
    (tmp_path / "items.tsv").write_text(
        "\n".join(["item_id\ttitle" if titles else "item_id", *rows, ""])
    )
    (tmp_path / "sequences.tsv").write_text("\n".join([header, *lines, ""]))
    return tmp_path


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("INTEREST_LOG_LEVEL", "error")


def run(*words: str | Path) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_the_table_the_files_and_the_report_say_the_same(tmp_path: Path) -> None:
    log, to = folder(tmp_path), tmp_path / "out"
    stdout, _ = run(log, "--out", to, "--html", tmp_path / "report.html")
    report = json.loads((to / "quality.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == [
        "popularity", "co-occurrence", "ease", "mean-of-items",
        "last-item", "title-terms", "zero-shot", "zero-shot-sparse",
    ]  # fmt: skip
    wanted = {"recall@5", "ndcg@5", "recall@10", "ndcg@10", "untied_ndcg@10", "coverage@10"}
    assert all(wanted <= set(row) for row in rows.values())
    # One item of its kind is left, and titles say the kind.
    assert rows["zero-shot"]["recall@5"] == 1 > rows["popularity"]["recall@5"]
    assert report["targets"]["all"] == 40
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"""(src|href)=["']?http|url\(.?http""", page)  # nothing is fetched
    for name, row in rows.items():
        best = np.load(to / f"{name}.top20.npy")
        assert best.shape == (40, 20)
        assert best.dtype == np.int32
        for text in (stdout, page):
            assert name in text
            assert f"{row['ndcg@10']:.4f}" in text


def test_ranking_again_with_the_files_gives_the_same_figures(tmp_path: Path) -> None:
    log, to = folder(tmp_path), tmp_path / "out"
    run(log, "--rows", "ease", "--out", to)
    (row,) = json.loads((to / "quality.json").read_text())["rows"]
    ids = [line.split("\t")[0] for line in (log / "items.tsv").read_text().splitlines()[1:]]
    lines = (log / "sequences.tsv").read_text().splitlines()[1:]
    targets = np.array([ids.index(line.split("\t")[1].split()[-1]) for line in lines])
    place = (np.load(to / "ease.top20.npy") == targets[:, np.newaxis]).argmax(axis=1)
    assert np.mean(1 / np.log2(place + 2)) == pytest.approx(row["ndcg@20"], abs=0.02)


def test_text_vectors_are_encoded_once(tmp_path: Path) -> None:
    log, cache = folder(tmp_path), tmp_path / "vectors"
    first, _ = run(log, "--rows", "zero-shot", "--cache", cache)
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    again, _ = run(log, "--rows", "zero-shot", "--cache", cache)
    assert (again, file.stat().st_mtime_ns) == (first, written)
    file.write_bytes(file.read_bytes()[:-40])
    damaged, _ = run(log, "--rows", "zero-shot", "--cache", cache)
    assert damaged == first
    assert len(list(cache.iterdir())) == 1


def test_what_a_log_lacks_is_said_and_the_rest_is_evaluated(tmp_path: Path) -> None:
    stdout, stderr = run(folder(tmp_path, titles=False, times=False))
    assert "no times" in stderr
    assert "zero-shot is left out: the items have no titles" in stderr.replace("\n", " ")
    assert "ease" in stdout
    assert "untied" not in stdout
    assert "zero-shot" not in stdout


def test_global_time_cuts_at_two_moments(tmp_path: Path) -> None:
    stdout, _ = run(folder(tmp_path), "--protocol", "global-time", "--rows", "popularity,ease")
    assert stdout.startswith("global-time, test: 40 targets of 40 users")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "best"], "no row best"),
        (["--rows", "one-vector"], "need --bundle"),
        (["--rows", "system"], "need --bundle"),
        (["--bundle", "none"], "no model bundle"),
        (["--protocol", "global-time"], "needs the column unix_times"),
        (["--rows", "zero-shot"], "no row can be made"),
        (["--html", "no/such/folder/report.html"], "is no folder"),
        (["--rows", "ease", "--out", "items.tsv/out"], "cannot be written"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    log = folder(tmp_path, titles=False, times=False)
    monkeypatch.chdir(log)
    with pytest.raises(BadInput, match=said):
        run(log, *words)


PARAMETERS = """
n_dense = 8
n_terms = 4
text_dim = 4
dim = 32
n_layers = 1
epochs = 2
batch_events = 64
"""


def bundle(tmp_path: Path, log: Path, name: str, *words: str) -> Path:
    (tmp_path / "small.toml").write_text(PARAMETERS)
    out = tmp_path / name
    command = ["train", log, "--leave-out", "1", "--out", out, "--config", tmp_path / "small.toml"]
    result = CliRunner().invoke(app, [*map(str, command), *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


def test_bundles_of_several_seeds_are_one_row_and_leave_their_vectors(tmp_path: Path) -> None:
    log, to = folder(tmp_path), tmp_path / "out"
    first = bundle(tmp_path, log, "a", "--seed", "0")
    second = bundle(tmp_path, log, "b", "--seed", "1")
    stdout, _ = run(log, "--rows", "ease", "--bundle", first, "--bundle", second, "--out", to)
    ease, ours, served = json.loads((to / "quality.json").read_text())["rows"]
    assert (ease["name"], ours["name"], served["name"]) == ("ease", "one-vector", "system")
    assert len(served["runs"]) == 2
    assert [one["name"] for one in ours["runs"]] == ["one-vector/0", "one-vector/1"]
    mean = np.mean([one["ndcg@10"] for one in ours["runs"]])
    assert ours["ndcg@10"] == pytest.approx(mean)
    assert f"{ours['runs'][1]['ndcg@10']:.4f}" in stdout
    # Ranking again with the vectors, without the items of the history, gives the best items.
    users, items = np.load(to / "users.npy"), np.load(to / "items.npy")
    assert (users.dtype, items.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, atol=1e-5)
    scores = users @ items.T
    ids = [line.split("\t")[0] for line in (log / "items.tsv").read_text().splitlines()[1:]]
    for row, line in zip(scores, (log / "sequences.tsv").read_text().splitlines()[1:], strict=True):
        row[[ids.index(item) for item in line.split("\t")[1].split()[:-1]]] = -np.inf
    best = np.load(to / "one-vector.top20.npy")
    assert np.mean(scores.argmax(axis=1) == best[:, 0]) > 0.9  # ties may fall otherwise


def test_a_bundle_is_ranked_alone_where_only_its_row_is_asked_for(tmp_path: Path) -> None:
    log = folder(tmp_path)
    made = bundle(tmp_path, log, "a")
    run(log, "--rows", "one-vector", "--bundle", made, "--out", tmp_path / "out")
    (row,) = json.loads((tmp_path / "out" / "quality.json").read_text())["rows"]
    assert row["name"] == "one-vector"
    assert "runs" not in row


def test_held_out_items_are_kept_from_all_rows_and_told_apart(tmp_path: Path) -> None:
    log = folder(tmp_path)
    made = bundle(tmp_path, log, "a", "--hold-out-items", "0.3")
    words = ("--rows", "popularity,one-vector", "--bundle", made, "--out", tmp_path / "out")
    run(log, *words)
    report = json.loads((tmp_path / "out" / "quality.json").read_text())
    popularity, ours = report["rows"]
    assert 0 < report["targets"]["held-out item"] < 40
    # What was never met is as popular as nothing: last, with all others of its kind.
    assert popularity["slices"]["held-out item"] == 0
    assert popularity["held_out_recall@50"] == ours["held_out_recall@50"] == 1  # of 30 items
    plain = bundle(tmp_path, log, "b")
    with pytest.raises(BadInput, match="one by one"):
        run(log, "--bundle", made, "--bundle", plain)


def test_a_bundle_that_may_know_its_targets_is_warned_of(tmp_path: Path) -> None:
    log = folder(tmp_path)
    honest = bundle(tmp_path, log, "a")
    assert "may know its targets" not in run(log, "--rows", "one-vector", "--bundle", honest)[1]
    knows = bundle(tmp_path, log, "b", "--leave-out", "0")
    _, said = run(log, "--rows", "one-vector", "--bundle", knows)
    assert "200 events, and leave-one-out leaves 160" in said.replace("\n", " ")
