"""The forward pass of BERT and its kin over texts that lie end to end: no padding, few copies.

Linear layers and norms see one matrix of all tokens; attention runs over the texts of one length
at a time, which needs no mask. Weights are those of the transformers model, shared with it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from interest.bundle import Pooling

log = logging.getLogger(__name__)

#: Model type → positions before the first (RoBERTa and its kin count from behind the padding id).
_KNOWN: Final = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}


class _Layer(NamedTuple):
    """One layer: weights as (in, out), so that a product can be added in place."""

    n_heads: int
    qkv: Tensor  # (3D, D)
    qkv_bias: Tensor
    out: Tensor  # (D, D)
    out_bias: Tensor
    attention_norm: Any
    up: Any
    activation: Any
    down: Tensor  # (4D, D)
    down_bias: Tensor
    norm: Any


class _Run(NamedTuple):
    """Neighbouring texts of one length in the joined tokens."""

    first: int
    n_texts: int
    n_tokens: int  # of each

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.n_texts * self.n_tokens)


class PackedBert:
    """Gives pooled vectors of a batch; same numbers as the model it was made of, to rounding."""

    def __init__(self, model: Any) -> None:
        embeddings = model.embeddings
        self._words = embeddings.word_embeddings.weight  # (V, D)
        # Of one segment: its vector goes to every position.
        self._positions = (
            embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        )  # (P, D)
        offset = model.config.pad_token_id + 1 if _KNOWN[model.config.model_type] else 0
        self._positions = self._positions[offset:]
        self._norm = embeddings.LayerNorm
        self._layers = [_layer(layer) for layer in model.encoder.layer]

    @staticmethod
    def of(model: Any) -> PackedBert | None:
        """Make one where the architecture is known, else None; whoever asks compares the two."""
        config = model.config
        plain = (
            getattr(config, "model_type", "") in _KNOWN
            and not getattr(config, "is_decoder", False)
            and not getattr(config, "add_cross_attention", False)
            and getattr(config, "position_embedding_type", "absolute") == "absolute"
        )
        if not plain:
            return None
        try:
            return PackedBert(model)
        except AttributeError as error:  # another release of transformers names its parts anew
            log.info("the text model runs padded: %s", error)
            return None

    def __call__(self, batch: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
        """Pool texts that are sorted by length: B lists of token ids give (B, D)."""
        runs = _runs([len(ids) for ids in batch])
        x = self._embed(batch, runs)  # (N, D), N tokens in all
        for layer in self._layers:
            x = _through(layer, x, runs)
        return torch.cat(
            [_pool(x[run.rows].view(run.n_texts, run.n_tokens, -1), pooling) for run in runs]
        )

    def _embed(self, batch: Sequence[Sequence[int]], runs: Sequence[_Run]) -> Tensor:
        x = self._words[torch.tensor(list(itertools.chain.from_iterable(batch)))]  # (N, D)
        for run in runs:
            x[run.rows].view(run.n_texts, run.n_tokens, -1).add_(self._positions[: run.n_tokens])
        return self._norm(x)  # type: ignore[no-any-return]


def _layer(layer: Any) -> _Layer:
    attention = layer.attention.self
    parts = (attention.query, attention.key, attention.value)
    qkv = torch.cat([part.weight for part in parts])
    for part, rows in zip(parts, qkv.chunk(3), strict=True):
        part.weight.data = rows  # one copy in memory, whichever way the model is run
    return _Layer(
        n_heads=attention.num_attention_heads,
        qkv=qkv,
        qkv_bias=torch.cat([part.bias for part in parts]),
        out=layer.attention.output.dense.weight.t(),
        out_bias=layer.attention.output.dense.bias,
        attention_norm=layer.attention.output.LayerNorm,
        up=layer.intermediate.dense,
        activation=layer.intermediate.intermediate_act_fn,
        down=layer.output.dense.weight.t(),
        down_bias=layer.output.dense.bias,
        norm=layer.output.LayerNorm,
    )


def _through(layer: _Layer, x: Tensor, runs: Sequence[_Run]) -> Tensor:
    """Run one layer; x (N, D) is overwritten."""
    qkv = functional.linear(x, layer.qkv, layer.qkv_bias)  # (N, 3D)
    context = torch.empty_like(x)
    for run in runs:
        # (n, T, 3, H, D/H) → 3 of (n, H, T, D/H)
        q, k, v = (
            qkv[run.rows]
            .view(run.n_texts, run.n_tokens, 3, layer.n_heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(
            1, 2
        )  # (n, T, H, D/H)
        context[run.rows].view(attended.shape).copy_(attended)
    x = layer.attention_norm(x.add_(layer.out_bias).addmm_(context, layer.out))
    hidden = layer.activation(layer.up(x))  # (N, 4D)
    return layer.norm(x.add_(layer.down_bias).addmm_(hidden, layer.down))  # type: ignore[no-any-return]


def _runs(lengths: Sequence[int]) -> list[_Run]:
    runs: list[_Run] = []
    first = 0
    for n_tokens, texts in itertools.groupby(lengths):
        n_texts = sum(1 for _ in texts)
        runs.append(_Run(first, n_texts, n_tokens))
        first += n_texts * n_tokens
    return runs


def _pool(hidden: Tensor, pooling: Pooling) -> Tensor:
    """Pool texts of one length: (n, T, D) gives (n, D)."""
    if pooling == "mean":
        return hidden.mean(dim=1)
    return hidden[:, 0 if pooling == "first" else -1]
