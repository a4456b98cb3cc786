"""Train and evaluate with one code on logs that lack what others have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from interest_cli.main import app
from tests.unit.encoder.tiny_models import save

N_ITEMS = 24
N_USERS = 120
LENGTH = 8
#: A smaller model than the default, and no other difference.
CONFIG = "dim = 32\nn_layers = 1\nepochs = 16\nbatch_events = 128\n"

GAMES = ["Legend of Castle No. {n}", "Puzzle {n} for Kids", "Racing Cup {n} (Import)"]
KEYWORDS = ["running, shoes, {n}", "tent|camping|{n}p", "YOGA-MAT_{n}"]


def items_tsv(titles: list[str]) -> str:
    """Titles by turns, every eighth of them empty; of none, there is no such column."""
    if not titles:
        return "".join(["item_id\n", *(f"g{n}\n" for n in range(N_ITEMS))])
    named = [titles[n % 3].format(n=n) if n % 8 else "" for n in range(N_ITEMS)]
    return "".join(["item_id\ttitle\n", *(f"g{n}\t{name}\n" for n, name in enumerate(named))])


def sequences_tsv(*, times: bool, types: bool) -> str:
    """Everybody begins somewhere and takes the next item of the circle."""
    random = np.random.default_rng(0)
    header = ["user_id", "item_ids", *["unix_times"] * times, *["types"] * types]
    lines = ["\t".join(header)]
    for user, begin in enumerate(random.integers(0, N_ITEMS, N_USERS).tolist()):
        seconds = 1_600_000_000 + np.cumsum(random.integers(30, 90_000, LENGTH))
        cells = [f"u{user}", " ".join(f"g{(begin + n) % N_ITEMS}" for n in range(LENGTH))]
        cells += [" ".join(map(str, seconds.tolist()))] * times
        cells += [" ".join(random.choice(["view", "click", "cart"], LENGTH))] * types
        lines.append("\t".join(cells))
    return "\n".join([*lines, ""])


LOGS = {
    "game reviews without times": (GAMES, False, False),
    "sports items of keywords": (KEYWORDS, True, False),
    "a click log without text": ([], True, True),
}


@pytest.fixture
def text_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "text").mkdir()
    save("bert", tmp_path / "text")
    monkeypatch.setenv("INTEREST_TEXT_MODEL", str(tmp_path / "text"))
    monkeypatch.setenv("INTEREST_THREADS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", LOGS)
def test_what_users_do_next_is_learned(name: str, text_model: Path) -> None:
    titles, times, types = LOGS[name]
    log = text_model / "log"
    log.mkdir()
    (log / "items.tsv").write_text(items_tsv(titles))
    (log / "sequences.tsv").write_text(sequences_tsv(times=times, types=types))
    (text_model / "small.toml").write_text(CONFIG)
    made, found = text_model / "bundle", text_model / "found"
    config = ["--config", str(text_model / "small.toml"), "--leave-out", "1"]
    for words in (
        ["train", str(log), "--out", str(made), *config],
        ["evaluate", str(log), "--bundle", str(made), "--out", str(found)],
    ):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    report = json.loads((found / "quality.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert ("zero-shot" in rows) == bool(titles)
    assert ("untied_ndcg@10" in rows["one-vector"]) == times
    assert rows["one-vector"]["ndcg@10"] > 0.6 > 0.4 > rows["popularity"]["ndcg@10"]
    assert np.isfinite(np.load(found / "users.npy")).all()
