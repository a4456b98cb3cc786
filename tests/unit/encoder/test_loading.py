from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encoder.loading import _dtype, choose_device, load_text_encoder
from encoder.text import PREPARATION
from encoder.text_encoder import TextEncoder
from interest.errors import BadInput, EncoderUnavailable
from tests.unit.encoder.tiny_models import Tiny


@pytest.fixture
def copied(tiny: Tiny, tmp_path: Path) -> Path:
    """A tiny BERT that a test may damage."""
    shutil.copytree(tiny("bert"), tmp_path / "model")
    return tmp_path / "model"


def test_the_default_model_is_described_in_full(minilm: TextEncoder) -> None:
    described = minilm.described
    assert (described.reference, described.dim, described.pooling) == ("", 384, "mean")
    assert (described.max_tokens, described.preparation) == (256, PREPARATION)
    assert len(described.fingerprint) == 32


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("bert", "mean"), ("roberta", "mean"), ("t5", "mean"), ("gpt2", "last"), ("llama", "last")],
)
def test_without_a_word_from_the_folder_decoders_pool_the_last_token(
    kind: str, pooling: str, tiny: Tiny
) -> None:
    assert load_text_encoder(str(tiny(kind))).described.pooling == pooling


def test_the_pooling_of_the_folder_is_taken_and_a_setting_outranks_it(copied: Path) -> None:
    (copied / "1_Pooling").mkdir()
    (copied / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    assert load_text_encoder(str(copied)).described.pooling == "first"
    assert load_text_encoder(str(copied), pooling="last").described.pooling == "last"


@pytest.mark.parametrize(("kind", "limit"), [("bert", 24), ("gpt2", 24), ("roberta", 12)])
def test_a_text_longer_than_the_model_reads_is_cut_at_its_limit(
    kind: str, limit: int, tiny: Tiny
) -> None:
    encoder = load_text_encoder(str(tiny(kind)), max_tokens=1000)
    assert encoder.max_tokens == limit
    assert np.linalg.norm(encoder.encode(["red mug " * 100])) == pytest.approx(1)


def test_the_setting_cuts_below_the_limit(tiny: Tiny) -> None:
    encoder = load_text_encoder(str(tiny("bert")), max_tokens=8)
    # Six words and two special tokens: the seventh word is not read.
    seven = encoder.encode(["red blue green mug cup shirt cotton", "red blue green mug cup shirt"])
    np.testing.assert_allclose(seven[0], seven[1], atol=1e-6)


def test_an_instruction_that_leaves_no_room_is_refused(tiny: Tiny) -> None:
    with pytest.raises(BadInput, match="INTEREST_TEXT_INSTRUCTION"):
        load_text_encoder(str(tiny("bert")), instruction="red mug " * 10, max_tokens=16)


def test_an_instruction_of_broken_bytes_is_one_clear_line(tiny: Tiny) -> None:
    broken = b"query \xff".decode("utf-8", "surrogateescape")  # as os.environ gives it
    with pytest.raises(BadInput, match="INTEREST_TEXT_INSTRUCTION is not UTF-8"):
        load_text_encoder(str(tiny("bert")), instruction=broken)


def test_a_folder_is_loaded_without_a_word_and_without_the_network(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_text_encoder(str(tiny("bert")))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_folder_is_one_clear_line(name: str, copied: Path) -> None:
    (copied / name).write_bytes((copied / name).read_bytes()[:100])
    with pytest.raises(EncoderUnavailable, match="cannot be loaded") as caught:
        load_text_encoder(str(copied))
    assert "\n" not in str(caught.value)
    assert "INTEREST_TEXT_MODEL" in str(caught.value)


def test_a_folder_without_weights_is_one_clear_line(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    with pytest.raises(EncoderUnavailable, match="cannot be loaded"):
        load_text_encoder(str(copied))


def test_missing_weights_are_not_filled_with_random_numbers(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderUnavailable, match=r"lacks 1 of its weights.*fetch it again"):
        load_text_encoder(str(copied))


def test_an_architecture_that_transformers_does_not_know_is_one_clear_line(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"model_type": "from-the-future"}))
    with pytest.raises(EncoderUnavailable, match="from-the-future") as caught:
        load_text_encoder(str(copied))
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_numbers_are_refused_at_once(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    weights["embeddings.LayerNorm.weight"].fill_(torch.nan)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderUnavailable, match="NaN"):
        load_text_encoder(str(copied))


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "meta:no"])
def test_a_device_that_is_not_there_is_one_clear_line(name: str) -> None:
    with pytest.raises(EncoderUnavailable, match="INTEREST_DEVICE") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def test_a_device_is_found_by_itself() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected


@pytest.mark.parametrize(
    ("kind", "device", "expected"),
    [
        ("bert", "cpu", torch.float32),
        ("bert", "cuda", torch.float16),
        ("qwen3", "cuda", torch.float16),
        ("gemma3_text", "cuda", torch.float32),
        ("t5", "cuda", torch.float32),
    ],
)
def test_half_precision_is_for_gpus_and_for_models_that_fit_it(
    kind: str, device: str, expected: torch.dtype
) -> None:
    assert _dtype(SimpleNamespace(model_type=kind), torch.device(device)) == expected
