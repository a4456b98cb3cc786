from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from encoder.decay import DecayUserEncoder
from encoder.factory import Encoders, load_encoders
from encoder.sequence import SequenceItemEncoder, SequenceUserEncoder
from encoder.threads import usable_cores
from encoder.window_text import TextUserEncoder
from interest.bundle import BundleConfig
from interest.errors import BadInput, EncoderUnavailable
from interest.settings import Settings
from tests.unit.encoder.tiny_models import Tiny


def test_the_settings_decide_the_bundle(tiny: Tiny) -> None:
    settings = Settings(
        text_model=str(tiny("gpt2")),
        text_instruction="query : ",
        text_max_tokens=16,
        user_encoder="text",
        window_max_events=7,
        window_days=0.5,
    )
    encoders = load_encoders(settings)
    config = encoders.bundle.config
    assert isinstance(encoders.users, TextUserEncoder)
    assert (config.window.max_events, config.window.span_ms) == (7, 43_200_000)
    assert config.text_model.pooling == "last"
    assert (config.text_model.instruction, config.text_model.max_tokens) == ("query : ", 16)
    assert encoders.bundle.dim == encoders.items.dim == encoders.users.dim == 32


@pytest.mark.parametrize("user_encoder", ["decay", "text"])
def test_both_encoders_run_when_warmed(user_encoder: str, tiny: Tiny) -> None:
    settings = Settings(text_model=str(tiny("bert")), user_encoder=user_encoder)  # type: ignore[arg-type]
    encoders = load_encoders(settings)
    encoders.warm()
    assert isinstance(encoders.users, DecayUserEncoder) == (user_encoder == "decay")


def test_the_sequence_encoder_brings_its_own_space_and_the_seed_is_part_of_the_id(
    tiny: Tiny,
) -> None:
    def bundle(**other: Any) -> Encoders:
        return load_encoders(
            Settings(text_model=str(tiny("bert")), user_encoder="sequence", **other)
        )

    encoders = bundle()
    encoders.warm()
    assert isinstance(encoders.users, SequenceUserEncoder)
    assert isinstance(encoders.items, SequenceItemEncoder)
    assert encoders.bundle.dim == encoders.items.dim == encoders.users.dim == 64
    assert bundle().bundle == encoders.bundle
    assert bundle(sequence_seed=1).bundle.model_id != encoders.bundle.model_id
    assert bundle(sequence_dim=96).bundle.dim == 96
    with pytest.raises(BadInput, match="INTEREST_SEQUENCE_DIM"):
        bundle(sequence_dim=100)


def test_the_model_id_is_the_same_wherever_the_model_lies(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("bert"), tmp_path / "elsewhere")
    here = load_encoders(Settings(text_model=str(tiny("bert")))).bundle
    there = load_encoders(Settings(text_model=str(tmp_path / "elsewhere"))).bundle
    assert here.model_id == there.model_id


@pytest.mark.parametrize(
    "other", [{"text_pooling": "first"}, {"window_max_events": 10}, {"user_encoder": "text"}]
)
def test_whatever_changes_vectors_changes_the_model_id(other: dict[str, str], tiny: Tiny) -> None:
    settings = Settings(text_model=str(tiny("bert")))
    changed = msgspec.structs.replace(settings, **other)
    assert load_encoders(settings).bundle.model_id != load_encoders(changed).bundle.model_id


def test_a_bundle_survives_being_written_as_json(tiny: Tiny) -> None:
    config = load_encoders(Settings(text_model=str(tiny("bert")))).bundle.config
    raw = msgspec.json.encode(config)
    assert msgspec.json.decode(raw, type=BundleConfig) == config
    assert b'"return":-1.0' in raw


def test_a_missing_model_is_one_clear_line() -> None:
    with pytest.raises(EncoderUnavailable, match="does not exist"):
        load_encoders(Settings(text_model="/no/such/model"))


def test_threads_are_set_where_the_settings_name_them(tiny: Tiny) -> None:
    before = torch.get_num_threads()
    try:
        load_encoders(Settings(text_model=str(tiny("bert")), threads=1))
        assert torch.get_num_threads() == 1
        load_encoders(Settings(text_model=str(tiny("bert")), threads=0))
        assert torch.get_num_threads() == usable_cores()
    finally:
        torch.set_num_threads(before)
