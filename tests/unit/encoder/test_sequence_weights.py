from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from encoder.sequence_weights import load_sequence, random_sequence, save_sequence
from interest.errors import BadInput
from tests.unit.encoder.test_sequence_model import lively


def test_a_model_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = lively(n_items=2)
    save_sequence(path, model, ["mug", "cup"])
    loaded = load_sequence(path, text_dim=8)
    assert loaded.item_ids == ("mug", "cup")
    assert loaded.model.shape == model.shape
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight), name


def test_the_fingerprint_is_that_of_the_numbers_wherever_they_lie(tmp_path: Path) -> None:
    drawn = random_sequence(7, text_dim=8, dim=32)
    prints = {drawn.described.fingerprint}
    for name in "ab":
        save_sequence(tmp_path / name, drawn.model)
        prints.add(load_sequence(tmp_path / name, text_dim=8).described.fingerprint)
    assert len(prints) == 1
    assert random_sequence(8, text_dim=8, dim=32).described.fingerprint not in prints
    one, other = lively(n_items=1), lively(n_items=1)
    save_sequence(tmp_path / "one", one, ["mug"])
    save_sequence(tmp_path / "other", other, ["cup"])
    assert (
        load_sequence(tmp_path / "one", text_dim=8).described.fingerprint
        != load_sequence(tmp_path / "other", text_dim=8).described.fingerprint
    )


def test_what_cannot_be_run_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model"
    model = lively(n_items=1)

    def refused(match: str, text_dim: int = 8) -> None:
        with pytest.raises(BadInput, match=match) as caught:
            load_sequence(path, text_dim=text_dim)
        assert "\n" not in str(caught.value)

    refused("copy the bundle again")  # no such file
    save_sequence(path, model, ["mug"])
    refused("the bundle's text has 9", text_dim=9)
    save_sequence(path, model, [])
    refused("names 0 items for 1")
    path.write_bytes(path.read_bytes()[:-40])
    refused("cannot be read")
    path.write_bytes(b"no tensors at all")
    refused("cannot be read")
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    refused("cannot be read")
    header = {"format": "99", "shape": {}, "item_ids": []}
    safetensors.torch.save_file(
        {"a": torch.zeros(1)}, path, metadata={"interest-sequence": json.dumps(header)}
    )
    refused("format 99")
    sick = lively()
    sick.norm.weight[0] = torch.nan
    save_sequence(path, sick)
    refused("NaN")
