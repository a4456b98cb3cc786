"""Training as a whole, on a shop where the next item can be learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from encoder.bundle_folder import BundleParts
from encoder.factory import sequence_encoders
from encoder.items import FeatureItemEncoder
from encoder.training.fit import TrainedOn, train
from encoder.training.loop import EpochReport
from encoder.training.parameters import TrainingParameters, read_parameters
from interest.bundle import TextModel
from interest.encoded_items import EncodedItems
from interest.errors import BadInput
from interest.event import Event
from interest.item import Item
from tests.unit.encoder.training.shop import ITEMS, Texts, circles, event, windows_of

SMALL = TrainingParameters(
    n_dense=8, n_terms=4, text_dim=8, dim=32, head_dim=16, n_layers=1, epochs=6, batch_events=64,
    dropout=0.1, learning_rate=0.01, patience=6,
)  # fmt: skip
TEXT_MODEL = TextModel(reference="here", fingerprint="f", dim=16)


def trained(
    folder: Path,
    events: list[Event] | None = None,
    items: list[Item] | None = None,
    *,
    resume: bool = False,
    until: int | None = None,
    seed: int = 0,
    **parameters: Any,
) -> tuple[BundleParts, list[EpochReport]]:
    """Train; interrupted after the report of epoch ``until``."""
    reports: list[EpochReport] = []

    def on_epoch(report: EpochReport) -> None:
        reports.append(report)
        if report.epoch == until:
            raise KeyboardInterrupt

    data = TrainedOn(
        windows_of(circles(60) if events is None else events),
        ITEMS if items is None else items,
        Texts(),
        TEXT_MODEL,
    )
    parts, _ = train(
        data, msgspec.structs.replace(SMALL, **parameters), seed=seed, folder=folder,
        resume=resume, device=torch.device("cpu"), threads=1, on_epoch=on_epoch,
        progress=lambda what, n, of: None, licences=["made up"],
    )  # fmt: skip
    return parts, reports


def test_it_learns_what_comes_next_and_the_bundle_serves_it(tmp_path: Path) -> None:
    parts, reports = trained(tmp_path / "run")
    assert reports[-1].loss < reports[0].loss / 2
    config = parts.bundle.config
    assert config.training is not None
    assert config.training.metrics["ndcg@10"] > 0.9
    assert config.licences == ("made up",)
    assert config.sequence is not None
    assert parts.features is not None
    assert parts.sequence is not None
    texts = FeatureItemEncoder(Texts(), parts.features)
    items, users = sequence_encoders(
        config.sequence, config.decay, parts.sequence, texts, torch.device("cpu")
    )
    known = EncodedItems(ITEMS, items.encode_items(ITEMS))
    walk = windows_of([event("new", n, f"i{n + 3:02}", n) for n in range(4)])
    vectors = users.encode(walk, known)
    assert vectors.shape == (1, parts.bundle.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert ITEMS[int((known.vectors @ vectors[0]).argmax())].item_id == "i07"


def test_one_seed_is_one_bundle(tmp_path: Path) -> None:
    one, other = (trained(tmp_path / name, epochs=2)[0].bundle for name in "ab")
    assert one.model_id == other.model_id
    assert trained(tmp_path / "c", epochs=2, seed=1)[0].bundle.model_id != one.model_id


@pytest.mark.parametrize("sampled", [False, True])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path, sampled: bool) -> None:
    how: dict[str, Any] = {"full_softmax_items": 5, "sampled_items": 40} if sampled else {}
    whole, reports = trained(tmp_path / "whole", epochs=4, **how)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", epochs=4, until=1, **how)
    resumed, again = trained(tmp_path / "cut", epochs=4, resume=True, **how)
    assert resumed.bundle.model_id == whole.bundle.model_id
    assert [r.loss for r in again] == [r.loss for r in reports]
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3]


def test_a_run_is_gone_on_with_only_when_asked_and_only_with_the_same_data(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", until=0)
    with pytest.raises(BadInput, match="--resume"):
        trained(tmp_path / "run")
    with pytest.raises(BadInput, match="another log, catalogue, seed or parameters"):
        trained(tmp_path / "run", resume=True, seed=1)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="damaged"):
        trained(tmp_path / "run", resume=True)


def test_many_items_are_learned_from_a_sample(tmp_path: Path) -> None:
    parts, _ = trained(tmp_path / "run", full_softmax_items=5, sampled_items=6, epochs=8)
    assert parts.bundle.config.training is not None
    assert parts.bundle.config.training.metrics["ndcg@10"] > 0.8


def test_it_ends_early_where_nothing_gets_better(tmp_path: Path) -> None:
    _, reports = trained(tmp_path / "run", learning_rate=1e-9, epochs=9, patience=2)
    assert len(reports) < 9
    best = max(range(len(reports)), key=lambda n: reports[n].ndcg)
    assert len(reports) == best + 1 + 2


def test_an_item_that_training_never_saw_is_left_out_of_the_softmax(tmp_path: Path) -> None:
    unseen = Item(item_id="never", title="thing number3 colour0 never")
    parts, _ = trained(tmp_path / "run", items=[*ITEMS, unseen], epochs=1)
    assert parts.sequence is not None
    assert "never" not in parts.sequence.item_ids
    assert len(parts.sequence.item_ids) == len(ITEMS)


def test_the_held_out_events_are_not_learned_from(tmp_path: Path) -> None:
    """An item that stands only where events are held out has no embedding."""
    events = [event(f"u{u}", n, f"i{u + n:02}", n) for u in range(8) for n in range(3)]
    events = [e if e.event_id != "u7-0002" else event("u7", 2, "held", 2) for e in events]
    parts, _ = trained(tmp_path / "run", events=events, epochs=1)
    assert parts.sequence is not None
    assert "held" not in parts.sequence.item_ids


def test_a_log_without_texts_or_validation_users_trains_to_the_last_epoch(tmp_path: Path) -> None:
    events = [event(f"u{u}", n, f"i{u + n:02}", n) for u in range(8) for n in range(2)]
    parts, reports = trained(tmp_path / "run", events=events, items=[], epochs=3)
    assert len(reports) == 3
    assert parts.bundle.config.sequence is not None
    assert parts.bundle.config.sequence.text is None


def test_parameters_come_from_toml_or_json_and_are_checked(tmp_path: Path) -> None:
    toml, as_json = tmp_path / "p.toml", tmp_path / "p.json"
    toml.write_text("epochs = 3\ndropout = 0.5\n")
    as_json.write_text('{"epochs": 3, "dropout": 0.5}')
    assert read_parameters(toml) == read_parameters(as_json)
    assert read_parameters(toml).epochs == 3
    for broken in ("epochs = 0", "epoch = 3", "epochs = ", "dropout = 1.0"):
        toml.write_text(broken)
        with pytest.raises(BadInput, match=r"p\.toml"):
            read_parameters(toml)
    with pytest.raises(BadInput, match="cannot be read"):
        read_parameters(tmp_path / "none.toml")


def test_the_docs_name_every_parameter_with_its_default() -> None:
    text = (Path(__file__).resolve().parents[4] / "docs" / "models.md").read_text()
    for name, default in msgspec.structs.asdict(TrainingParameters()).items():
        assert f"| `{name}` | {default} |" in text
