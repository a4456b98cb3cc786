"""``interest train`` and ``interest model``, from files to a bundle that a replay runs with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from encoder.bundle_folder import load_bundle_folder
from encoder.held_out import held_out_by
from encoder.loading import load_text_encoder
from interest.bundle_file import read_bundle
from interest.errors import BadInput
from interest.event import encode_event
from interest_cli.main import app
from tests.unit.encoder.tiny_models import save
from tests.unit.encoder.training.shop import ITEMS, circles

CONFIG = """
n_dense = 8
n_terms = 4
text_dim = 4
dim = 32
n_layers = 1
epochs = 2
batch_events = 64
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a log, a catalogue and parameters, beside a tiny text model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    save("bert", tmp_path / "text")
    monkeypatch.setenv("INTEREST_TEXT_MODEL", str(tmp_path / "text"))
    monkeypatch.setenv("INTEREST_THREADS", "1")
    lines = [encode_event(event).decode() for event in circles(20)]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, "{broken"]))
    items = [json.dumps({"item_id": i.item_id, "title": i.title}) for i in ITEMS]
    (tmp_path / "items.jsonl").write_text("\n".join(items))
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path


def interest(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


TRAIN = ["train", "log.jsonl", "--items", "items.jsonl", "--config", "small.toml", "--out"]


def test_a_log_becomes_a_bundle_that_a_replay_runs_with(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = interest(*TRAIN, "bundle", "--licence", "log: ours")
    bundle = read_bundle(shop / "bundle")
    assert bundle.model_id in said
    assert bundle.config.training is not None
    assert bundle.config.training.n_events == 140
    assert bundle.config.licences == ("log: ours",)
    epochs = (shop / "bundle" / "training.jsonl").read_text().splitlines()
    assert len(epochs) == 2
    assert not (shop / "bundle.training").exists()
    assert bundle.model_id in interest("model", "list", ".")
    shown = json.loads(interest("model", "show", "bundle"))
    assert shown["model_id"] == bundle.model_id
    assert bundle.model_id in interest("model", "verify", "bundle")
    monkeypatch.setenv("INTEREST_BUNDLE", "bundle")
    interest("replay", "log.jsonl", "--offline", "--items", "items.jsonl", "--out", "users.parquet")
    import pyarrow.parquet as pq

    rows = pq.read_table(shop / "users.parquet").to_pylist()
    assert {row["model_id"] for row in rows} == {bundle.model_id}
    assert len(rows) == 20
    assert {len(row["vector"]) for row in rows} == {bundle.dim}


def test_the_same_command_gives_the_same_bundle(shop: Path) -> None:
    ids = []
    for name in "ab":
        interest(*TRAIN, name)
        ids.append(read_bundle(shop / name).model_id)
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["train", "log.jsonl", "--out", "b"], "--items"),
        (["train", "none.jsonl", "--items", "items.jsonl", "--out", "b"], "none.jsonl"),
        (["train", "log.jsonl", "--items", "items.jsonl", "--out", "text"], "exists"),
        (["train", "log.jsonl", "--items", "items.jsonl", "--out", "no/where"], "make it first"),
        (["train", "text", "--out", "b"], r"items\.tsv"),
        (["train", "text", "--items", "items.jsonl", "--out", "b"], "event log"),
        (["model", "show", "text"], "no model bundle"),
        (["model", "verify", "none"], "no model bundle"),
        (["model", "list", "none"], "cannot be read"),
    ],
)
def test_wrong_input_is_one_clear_line(shop: Path, words: list[str], match: str) -> None:
    with pytest.raises(BadInput, match=match):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_damaged_bundle_in_a_list_is_named_and_the_others_are_shown(shop: Path) -> None:
    interest(*TRAIN, "good")
    (shop / "bad").mkdir()
    (shop / "bad" / "bundle.json").write_text("{}")
    done = CliRunner().invoke(app, ["model", "list", "."])
    assert done.exit_code == 2
    assert read_bundle(shop / "good").model_id in done.output
    assert "bad/bundle.json is damaged" in done.output


def test_a_folder_of_two_files_is_trained_on_without_the_newest_events(shop: Path) -> None:
    folder = shop / "folder"
    folder.mkdir()
    items = [item.item_id for item in ITEMS]
    catalogue = [f"{item.item_id}\t{item.title}" for item in ITEMS]
    (folder / "items.tsv").write_text("\n".join(["item_id\ttitle", *catalogue]))
    lines = [f"u{n}\t{' '.join((items * 2)[n % 12 : n % 12 + 6])}" for n in range(20)]
    (folder / "sequences.tsv").write_text("\n".join(["user_id\titem_ids", *lines, "once\ti00"]))
    train = ["train", str(folder), "--config", "small.toml"]
    interest(*train, "--out", "whole")
    interest(*train, "--out", "cut", "--leave-out", "1")
    records = [read_bundle(shop / name).config.training for name in ("whole", "cut")]
    assert [(r.n_users, r.n_events) for r in records if r] == [(21, 121), (20, 100)]
    assert all(r.n_items == 12 for r in records if r)


def test_items_that_are_held_out_have_no_embedding(shop: Path) -> None:
    interest(*TRAIN, "bundle", "--hold-out-items", "0.3")
    record = read_bundle(shop / "bundle").config.training
    assert record is not None
    assert record.parameters["hold_out_items"] == 0.3
    ids = [item.item_id for item in ITEMS]
    held_out = set(np.array(ids)[held_out_by(record, ids)])
    assert 0 < len(held_out) < len(ids)
    embedded = load_bundle_folder(shop / "bundle").sequence
    assert embedded is not None
    assert not held_out & set(embedded.item_ids)
    assert record.n_events < 140
    assert record.n_items == len(ids)


def test_the_tiny_text_model_is_what_the_bundle_names(shop: Path) -> None:
    interest(*TRAIN, "bundle")
    described = read_bundle(shop / "bundle").config.text_model
    assert described == load_text_encoder(str(shop / "text"), device="cpu").described
