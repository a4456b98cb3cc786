"""A pretrained language model that turns texts into unit vectors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.packed import PackedBert
from encoder.text import normalise
from interest.bundle import Pooling, TextModel
from interest.errors import BadInput, EncoderUnavailable
from interest.item import unit

log = logging.getLogger(__name__)

#: Padded tokens in one forward pass: small batches keep a CPU's caches warm, a GPU wants more.
CPU_BATCH_TOKENS: Final = 2_048
GPU_BATCH_TOKENS: Final = 32_768
#: Texts that are tokenised, sorted and encoded together; the next ones are tokenised meanwhile.
_SLICE: Final = 4_096
# A batch that is filled by a quarter ends before a text of less than this part of its longest.
_TIGHT: Final = 0.75
# The packed pass is taken where it gives the model's own vectors, text by text.
_SAME: Final = 0.99999
_COMPARED: Final = ("red cotton shirt", "mug", "lamp, 40 W; " * 30, "红色 马克杯")
# Any token a vocabulary has; four of them tell a sick model from a text that it cannot read.
_PROBE: Final = [[0, 0, 0, 0]]
# CUDA and Apple's mps say the first, the CPU's allocator the second.
_NO_MEMORY: Final = ("out of memory", "allocate memory")


class TextEncoder:
    """Encodes texts with one model on one device; safe to call from several threads.

    Padding is done here, on the right, whatever side the tokenizer prefers: positions then start
    at the first token, a causal model never sees padding, and the last token is at length - 1.
    Padding is masked, so a decoder needs no pad token. Segment ids are left out: a text is one
    segment.
    """

    def __init__(
        self, model: Any, tokenizer: Any, described: TextModel, device: torch.device
    ) -> None:
        self.described = described
        self._model = model
        self._packed: PackedBert | None = None
        self._tokenizer = tokenizer
        self._device = device
        pad_id = getattr(model.config, "pad_token_id", None)
        # RoBERTa and its kin count positions by comparing ids with the padding id.
        self._pad_id = tokenizer.pad_token_id if pad_id is None else pad_id
        # No token is longer than the vocabulary's longest, and a space may follow each. Only
        # "words" beyond that length, which no vocabulary spells, could reach further.
        longest = max(map(len, tokenizer.get_vocab()), default=1)
        self._max_chars = described.max_tokens * (longest + 1)
        self._batch_tokens = CPU_BATCH_TOKENS if device.type == "cpu" else GPU_BATCH_TOKENS
        # Tokenizers change their truncation in place.
        self._tokenizer_lock = threading.Lock()
        # Two forward passes at once would fight for the same cores. Held per batch, so that
        # users do not wait for a catalogue.
        self._lock = threading.Lock()

    def pack(self) -> bool:
        """Run without padding from here on, if the model is of a known kind and agrees.

        On a CPU only: a GPU would be busy starting small kernels, and padding is cheap there.
        """
        if self._device.type != "cpu":
            return False
        packed = PackedBert.of(self._model)
        if packed is None:
            return False
        padded = self.encode(_COMPARED)
        self._packed = packed
        same = (self.encode(_COMPARED) * padded).sum(axis=1)
        least = float(same[padded.any(axis=1)].min(initial=1.0))
        if least < _SAME:
            log.warning("the packed pass differs from the model (cosine %.6f): padded", least)
            self._packed = None
        return self._packed is not None

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.described.dim

    @property
    def max_tokens(self) -> int:
        """Where a text is cut, instruction and special tokens included."""
        return self.described.max_tokens

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts; they are normalised first, and the instruction is put before each.

        A text's row does not depend on the other texts (cosine ≥ 0.9999).

        Returns:
            (N, D), row i belongs to texts[i]: unit length, or zeros for a text of no token.

        Raises:
            EncoderUnavailable: the device failed or has no memory for one text; retry.
            BadInput: a text alone makes the model give NaN; the others are fine.
        """
        rows = np.zeros((len(texts), self.dim), np.float32)
        first = 0
        for tokens in self._tokenised(texts):
            # Longest first: neighbours need little padding, and memory runs out at once or never.
            order = sorted(
                (i for i, ids in enumerate(tokens) if ids), key=lambda i: -len(tokens[i])
            )
            for batch in self._batches(order, tokens):
                rows[[first + i for i in batch]] = self._pooled([tokens[i] for i in batch])
            first += len(tokens)
        self._check(rows)
        return unit(rows)

    def probe(self) -> None:
        """Return if the model gives finite numbers.

        Raises:
            EncoderUnavailable: it does not.
        """
        if not np.isfinite(self._pooled(_PROBE)).all():
            raise EncoderUnavailable(
                f"text model {self.described.reference or 'of the embedded extra'} gives NaN on "
                f"{self._device}; its weights or its device are damaged, or half precision is "
                "too narrow for it: set INTEREST_DEVICE=cpu"
            )

    def _check(self, rows: NDArray[np.float32]) -> None:
        sick = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if sick.size:
            self.probe()
            raise BadInput(f"the text model gives NaN for {sick.size} of {len(rows)} texts")

    def _tokenised(self, texts: Sequence[str]) -> Iterator[list[list[int]]]:
        """Yield the token ids of slice after slice; while one is used, the next is made."""
        if len(texts) <= _SLICE:
            yield self._tokenise(texts)
            return
        with ThreadPoolExecutor(1, "tokenizer") as ahead:
            made = ahead.submit(self._tokenise, texts[:_SLICE])
            for first in range(_SLICE, len(texts), _SLICE):
                tokens = made.result()
                made = ahead.submit(self._tokenise, texts[first : first + _SLICE])
                yield tokens
            yield made.result()

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Give token ids per text; [] for an empty text, also where an instruction precedes."""
        prepared = [normalise(text)[: self._max_chars] for text in texts]
        if not any(prepared):
            return [[] for _ in prepared]
        with self._tokenizer_lock:
            tokens: list[list[int]] = self._tokenizer(
                [self.described.instruction + text for text in prepared],
                truncation=True,
                max_length=self.max_tokens,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
        return [ids if text else [] for ids, text in zip(tokens, prepared, strict=True)]

    def _batches(self, order: Sequence[int], tokens: Sequence[list[int]]) -> Iterator[list[int]]:
        first = 0
        while first < len(order):
            longest = len(tokens[order[first]])
            size = max(1, self._batch_tokens // longest)
            batch = list(order[first : first + size])
            if self._packed is None and len(tokens[batch[-1]]) < _TIGHT * longest:
                enough = self._batch_tokens // (4 * longest)
                tight = sum(len(tokens[i]) >= _TIGHT * longest for i in batch)
                del batch[max(1, enough, tight) :]
            yield batch
            first += len(batch)

    def _pooled(self, batch: Sequence[list[int]]) -> NDArray[np.float32]:
        """Run one batch, longest text first; where memory runs out, in halves."""
        try:
            with self._lock, torch.inference_mode():
                pooled = self._forward(batch)
                return pooled.cpu().numpy()  # (B, D)
        except (RuntimeError, MemoryError) as error:
            failure = self._failure(error, len(batch))
        if failure is not None:
            raise failure
        # Outside of the except block, whose traceback would keep the tensors alive.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._batch_tokens = max(self.max_tokens, len(batch) * len(batch[0]) // 2)
        log.warning("out of memory at %d texts; batches are smaller from here", len(batch))
        middle = (len(batch) + 1) // 2
        return np.concatenate([self._pooled(batch[:middle]), self._pooled(batch[middle:])])

    def _failure(self, error: Exception, n_texts: int) -> Exception | None:
        """Translate what a forward pass raised; None where a smaller batch may succeed."""
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if isinstance(error, MemoryError) or any(sign in reason for sign in _NO_MEMORY):
            if n_texts > 1:
                return None
            return EncoderUnavailable(
                f"{self._device} has no memory for one text of {self.max_tokens} tokens; lower "
                "INTEREST_TEXT_MAX_TOKENS or free memory"
            )
        if self._device.type == "cpu":
            return error  # a bug, not a sick device: retrying would hide it
        unavailable = EncoderUnavailable(f"device {self._device} failed: {reason}")
        unavailable.__cause__ = error
        return unavailable

    def _forward(self, batch: Sequence[list[int]]) -> Tensor:
        if self._packed is not None:
            return self._packed(batch, self.described.pooling)
        lengths = torch.tensor([len(ids) for ids in batch])  # (B,)
        width = int(lengths.max())
        padded = torch.full((len(batch), width), self._pad_id or 0)  # (B, T)
        for row, ids in zip(padded, batch, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        mask = torch.arange(width) < lengths[:, None]  # (B, T)
        mask, lengths = mask.to(self._device), lengths.to(self._device)
        hidden = self._model(
            input_ids=padded.to(self._device), attention_mask=mask.long()
        ).last_hidden_state  # (B, T, D)
        # Half precision is for the matrix products; a sum over tokens needs more.
        return pool(hidden.float(), mask, self.described.pooling)


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Make one vector of a text's tokens: (B, T, D) and a right-padded mask (B, T) give (B, D)."""
    if pooling == "first":
        return hidden[:, 0]
    lengths = mask.sum(dim=1)  # (B,)
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    # where, not a product: NaN × 0 is NaN, and nobody promised what a model puts at padding.
    return hidden.where(mask[..., None], 0).sum(dim=1) / lengths[:, None]  # (B, D) / (B, 1)
