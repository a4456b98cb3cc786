from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from encoder.loading import load_text_encoder
from encoder.model_folder import resolve
from encoder.text_encoder import TextEncoder, pool
from interest.bundle import Pooling
from interest.errors import BadInput, EncoderUnavailable
from tests.unit.encoder.tiny_models import TEXTS, Tiny

KINDS = ["bert", "roberta", "t5", "gpt2", "llama"]
POOLINGS: list[Pooling] = ["mean", "first", "last"]


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Row by row; 1 for two rows of zeros."""
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(both_zero, 1, (a * b).sum(axis=1))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_each_text_gives_alone(kind: str, pooling: Pooling, tiny: Tiny) -> None:
    encoder = load_text_encoder(str(tiny(kind)), pooling=pooling, device="cpu")
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert cosines(together, alone).min() >= 0.9999
    assert together.dtype == np.float32


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_vector_is_the_models_own_without_padding(
    kind: str, pooling: Pooling, tiny: Tiny
) -> None:
    """By hand, text by text, with nothing of our code but the loading."""
    encoder = load_text_encoder(str(tiny(kind)), pooling=pooling, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(tiny(kind))
    model = AutoModel.from_pretrained(tiny(kind)).eval()
    model = model.get_encoder() if kind == "t5" else model
    texts = [text for text in TEXTS if text]
    for text, row in zip(texts, encoder.encode(texts), strict=True):
        ids = tokenizer(text)["input_ids"]
        limit = encoder.max_tokens
        if len(ids) > limit:  # what comes first stays, and so does a closing special token
            ids = ids[:limit] if kind in ("gpt2", "llama") else [*ids[: limit - 1], ids[-1]]
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]  # (T, D)
        expected = {"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1]}[pooling]
        expected = expected / expected.norm()
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_a_tokenizer_pads_on_changes_nothing(
    side: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("gpt2"), folder)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    said |= {"padding_side": side, "truncation_side": side}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    vectors = load_text_encoder(str(folder), device="cpu").encode(TEXTS)
    expected = load_text_encoder(str(tiny("gpt2")), device="cpu").encode(TEXTS)
    assert cosines(vectors, expected).min() >= 0.9999


def test_mean_pooling_leaves_padding_out() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [torch.nan, 9.0]]])  # (2, 2, 2)
    mask = torch.tensor([[True, True], [True, False]])
    assert pool(hidden, mask, "mean").tolist() == [[2.0, 3.0], [5.0, 6.0]]
    assert pool(hidden, mask, "first").tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert pool(hidden, mask, "last").tolist() == [[3.0, 4.0], [5.0, 6.0]]


def test_rows_have_unit_length_and_a_text_that_says_nothing_gives_zeros(tiny: Tiny) -> None:
    encoder = load_text_encoder(str(tiny("bert")), instruction="query : ", device="cpu")
    rows = encoder.encode(["red mug", "", " \u200b\n", "<br/>", "cup"])
    assert rows.any(axis=1).tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(np.linalg.norm(rows[[0, 4]], axis=1), 1, atol=1e-6)


def test_no_texts_give_no_rows(tiny: Tiny) -> None:
    assert load_text_encoder(str(tiny("gpt2"))).encode([]).shape == (0, 32)


def test_an_instruction_is_put_before_each_text(tiny: Tiny) -> None:
    plain = load_text_encoder(str(tiny("gpt2")), device="cpu")
    told = load_text_encoder(str(tiny("gpt2")), instruction="query : ", device="cpu")
    expected = plain.encode(["query : red mug", "query : cup"])
    np.testing.assert_allclose(told.encode(["red mug", "cup"]), expected, atol=1e-5)
    assert cosines(expected, plain.encode(["red mug", "cup"])).max() < 0.999


@pytest.fixture(scope="module")
def tiny_bert(tiny: Tiny) -> TextEncoder:
    return load_text_encoder(str(tiny("bert")), device="cpu")


@settings(deadline=None, max_examples=40)  # the machine may be busy
@given(st.lists(st.sampled_from(TEXTS), max_size=12), st.integers(8, 64))
def test_batches_of_any_size_restore_the_order(
    tiny_bert: TextEncoder, texts: list[str], batch_tokens: int
) -> None:
    expected = dict(zip(TEXTS, tiny_bert.encode(TEXTS), strict=True))
    encoder, _ = watched(tiny_bert)
    encoder._batch_tokens = batch_tokens
    for text, row in zip(texts, encoder.encode(texts), strict=True):
        np.testing.assert_allclose(row, expected[text], atol=1e-5)


class Watched:
    """A model that notes the shapes it is given, and fails as it is told."""

    def __init__(self, model: Any, fail: Any = None) -> None:
        self.config = model.config
        self.shapes: list[tuple[int, ...]] = []
        self._model, self._fail = model, fail

    def __call__(self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        self.shapes.append(tuple(input_ids.shape))
        assert torch.is_inference_mode_enabled()
        answer = self._model(input_ids=input_ids, attention_mask=attention_mask)
        if self._fail is not None:
            self._fail(input_ids, answer.last_hidden_state)
        return answer


def padded(encoder: TextEncoder) -> TextEncoder:
    """The same model by the way that every model can go."""
    return TextEncoder(encoder._model, encoder._tokenizer, encoder.described, encoder._device)


def watched(encoder: TextEncoder, fail: Any = None) -> tuple[TextEncoder, Watched]:
    model = Watched(encoder._model, fail)
    return TextEncoder(model, encoder._tokenizer, encoder.described, encoder._device), model


def test_batches_are_bounded_by_tokens_and_sorted_by_length(tiny_bert: TextEncoder) -> None:
    encoder, model = watched(tiny_bert)
    encoder._batch_tokens = 24
    encoder.encode([text for text in TEXTS if text] * 4)
    widths = [width for _, width in model.shapes]
    assert all(n * width <= 24 for n, width in model.shapes)
    assert widths == sorted(widths, reverse=True)


def test_when_memory_runs_out_smaller_batches_are_tried(tiny_bert: TextEncoder) -> None:
    def fail(input_ids: torch.Tensor, _: torch.Tensor) -> None:
        if input_ids.numel() > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    texts = [text for text in TEXTS if text] * 4
    encoder, model = watched(tiny_bert, fail)
    np.testing.assert_allclose(encoder.encode(texts), tiny_bert.encode(texts), atol=1e-5)
    model.shapes.clear()
    encoder.encode(texts)
    assert max(n * width for n, width in model.shapes) < 200  # it was learned


def test_no_memory_for_one_text_is_one_clear_line(tiny_bert: TextEncoder) -> None:
    def fail(*_: torch.Tensor) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes\nat")

    encoder, _ = watched(tiny_bert, fail)
    with pytest.raises(EncoderUnavailable, match="no memory for one text") as caught:
        encoder.encode(["red", "blue"])
    assert "\n" not in str(caught.value)


def test_a_device_that_fails_is_unavailable_and_a_bug_on_the_cpu_is_a_bug(
    tiny_bert: TextEncoder,
) -> None:
    def fail(*_: torch.Tensor) -> None:
        raise RuntimeError("device-side assert triggered\nand pages of advice")

    encoder, _ = watched(tiny_bert, fail)
    with pytest.raises(RuntimeError, match="device-side assert"):
        encoder.encode(["red"])
    unwell = encoder._failure(RuntimeError("assert triggered\nadvice"), 1)
    assert isinstance(unwell, RuntimeError)
    encoder._device = torch.device("cuda")
    translated = encoder._failure(RuntimeError("assert triggered\nadvice"), 1)
    assert isinstance(translated, EncoderUnavailable)
    assert str(translated) == "device cuda failed: assert triggered"


def test_a_model_that_turned_to_nan_is_unavailable(tiny_bert: TextEncoder) -> None:
    encoder, _ = watched(tiny_bert, lambda _, hidden: hidden.fill_(torch.nan))
    with pytest.raises(EncoderUnavailable, match="gives NaN"):
        encoder.encode(["red mug"])


def test_one_text_that_gives_nan_is_not_a_sick_device(tiny_bert: TextEncoder) -> None:
    """Else one poisonous text would be retried for ever, and everybody would wait behind it."""
    mug = tiny_bert._tokenizer("mug")["input_ids"][1]

    def fail(input_ids: torch.Tensor, hidden: torch.Tensor) -> None:
        hidden[(input_ids == mug).any(dim=1)] = torch.inf

    encoder, _ = watched(tiny_bert, fail)
    with pytest.raises(BadInput, match="NaN for 1 of 2 texts"):
        encoder.encode(["red mug", "blue cup"])
    assert encoder.encode(["blue cup"]).any()


def test_threads_may_share_one_model(tiny_bert: TextEncoder) -> None:
    expected = tiny_bert.encode(TEXTS)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: tiny_bert.encode(TEXTS), range(12)))
    assert all(np.allclose(answer, expected, atol=1e-5) for answer in answers)


def test_megabytes_of_text_never_reach_the_tokenizer(
    tiny_bert: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = tiny_bert._tokenizer

    def tokenizer(texts: list[str], **options: Any) -> Any:
        seen.extend(map(len, texts))
        return real(texts, **options)

    monkeypatch.setattr(tiny_bert, "_tokenizer", tokenizer)
    words = "red mug " * 500_000
    row = tiny_bert.encode([words])
    assert max(seen) < 1_000
    monkeypatch.undo()
    np.testing.assert_allclose(row, tiny_bert.encode(["red mug " * 50]), atol=1e-6)


def test_minilm_gives_what_sentence_transformers_gives(minilm: TextEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [
        "WHITE HANGING HEART T-LIGHT HOLDER",
        "mug",
        "红色马克杯",
        "a long description of a lamp that stands on the floor, " * 60,
        "Women's cotton shirt, size M",
    ]
    peer = SentenceTransformer(str(resolve("")), device="cpu")
    expected = peer.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    assert cosines(minilm.encode(texts), expected).min() >= 0.9999


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_runs_without_padding_and_the_rest_as_before(kind: str, tiny: Tiny) -> None:
    encoder = load_text_encoder(str(tiny(kind)), device="cpu")
    assert (encoder._packed is not None) == (kind in ("bert", "roberta"))


def test_minilm_packed_is_minilm_padded(minilm: TextEncoder) -> None:
    assert minilm._packed is not None
    texts = ["mug", "red cotton shirt", "红色马克杯", "", "a lamp, " * 200, *map(str, range(40))]
    assert cosines(minilm.encode(texts), padded(minilm).encode(texts)).min() >= 0.99999


def test_a_packed_pass_that_differs_is_not_taken(
    tiny_bert: TextEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layer = tiny_bert._model.encoder.layer[0]
    encoder = padded(tiny_bert)
    # A release of transformers that puts something else where we look.
    monkeypatch.setattr(layer.intermediate, "forward", lambda hidden: hidden.repeat(1, 1, 2))
    assert not encoder.pack()
    assert "packed pass differs" in caplog.text
    monkeypatch.undo()
    assert encoder.pack()


def test_both_ways_share_their_weights(tiny: Tiny) -> None:
    encoder = load_text_encoder(str(tiny("bert")), device="cpu")
    assert encoder._packed is not None
    layer, packed = encoder._model.encoder.layer[0], encoder._packed._layers[0]
    ours, attention = packed.qkv.untyped_storage(), layer.attention.self
    for part in (attention.query, attention.key, attention.value):
        assert part.weight.untyped_storage().data_ptr() == ours.data_ptr()
    assert packed.down.data_ptr() == layer.output.dense.weight.data_ptr()


def test_a_batch_ends_where_texts_get_much_shorter(tiny_bert: TextEncoder) -> None:
    encoder, model = watched(tiny_bert)
    encoder._batch_tokens = 80
    encoder.encode(["cup " * 16] * 3 + ["mug"] * 8)
    assert model.shapes == [(3, 18), (8, 3)]


def test_many_texts_are_tokenised_ahead_and_keep_their_order(
    tiny_bert: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.tile(tiny_bert.encode(TEXTS), (5, 1))
    monkeypatch.setattr("encoder.text_encoder._SLICE", 3)
    np.testing.assert_allclose(tiny_bert.encode(TEXTS * 5), expected, atol=1e-5)
