"""``interest replay --offline``: what is printed of a log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interest.errors import BadInput
from interest.event import encode_event
from interest_cli.main import app
from tests.unit.encoder.tiny_models import save
from tests.unit.encoder.training.shop import ITEMS, circles

REPLAY = ["replay", "log.jsonl", "--offline", "--items", "items.jsonl"]


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log and a catalogue in the current folder, and a tiny text model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    save("bert", tmp_path / "text")
    monkeypatch.setenv("INTEREST_TEXT_MODEL", str(tmp_path / "text"))
    monkeypatch.setenv("INTEREST_THREADS", "1")
    lines = [encode_event(event).decode() for event in circles(8)]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, "{broken"]))
    items = [json.dumps({"item_id": i.item_id, "title": i.title}) for i in ITEMS]
    (tmp_path / "items.jsonl").write_text("\n".join(items))


def interest(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_users_are_shown_with_what_they_are_offered_and_a_seed_chooses_them() -> None:
    said = interest(*REPLAY, "--show", "3", "--seed", "1")
    assert said.count("last items of user") == 3
    assert said.count("thing number") == 3 * (5 + 5)
    shares = dict(re.findall(r"^(\S[\w -]*?) +([\d.]+)% +[\d.]+%", said, re.M))
    assert shares.keys() == {
        "this model", "popularity", "co-occurrence", "ease", "mean-of-items", "last-item",
    }  # fmt: skip
    assert all(0 <= float(share) <= 100 for share in shares.values())
    assert "malformed_json" in said
    users = [
        re.findall(r"last items of user (\S+)", interest(*REPLAY, "--show", "3", "--seed", seed))
        for seed in ("1", "2")
    ]
    assert users[0] == re.findall(r"last items of user (\S+)", said)
    assert users[0] != users[1]


def test_the_quality_of_a_log_is_printed_as_the_counters_have_it() -> None:
    said = interest(*REPLAY, "--quality")
    [new] = re.findall(r"^ *new +(\d+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)", said, re.M)
    # Eight users of seven events, the first of each by a user who is not known yet.
    assert int(new[0]) == 8 * 6
    assert "8 cold" in said
    assert float(new[3]) == pytest.approx(int(new[1]) / 48, abs=1e-4)
    assert float(new[4]) == pytest.approx(float(new[2]) / 48, abs=1e-4)


@pytest.mark.parametrize("options", [["--show", "3"], ["--quality"]])
def test_what_is_printed_of_a_log_needs_no_kafka_and_says_so(options: list[str]) -> None:
    with pytest.raises(BadInput, match="belong to --offline"):
        interest("replay", "log.jsonl", *options)


def test_a_log_and_a_catalogue_that_do_not_belong_together_are_told() -> None:
    Path("items.jsonl").write_text('{"item_id": "another", "title": "A mug"}')
    with pytest.raises(BadInput, match="do the files belong together"):
        interest(*REPLAY, "--show", "3")
