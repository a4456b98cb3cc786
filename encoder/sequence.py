"""The user encoder ``sequence`` and the item encoder that belongs to it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.behaviours import n_event_tokens
from encoder.parts import Parts
from encoder.sequence_cuda import StagedSequence
from encoder.sequence_input import sequence_input
from encoder.sequence_model import SequenceModel
from encoder.sequence_packed import PackedSequence
from encoder.sequence_rows import Ints
from encoder.sequence_weights import LoadedSequence
from interest.errors import EncoderUnavailable
from interest.item import EncodedItem, Item, unit
from interest.ports import ItemEncoder
from interest.window import BehaviourWindow


class _Runner(Protocol):
    def encode(
        self, vectors: NDArray[np.float32], items: Ints, codes: Ints, lengths: Ints
    ) -> NDArray[np.float32]: ...


class SequenceItemEncoder:
    """Encodes items into the space of a sequence model: its item tower over texts.

    Args:
        texts: gives what the model was trained on: features of texts, or text vectors.
        parts: where the text stands beside the model's vector; its numbers are the first of
            what ``texts`` gives.
    """

    def __init__(
        self, texts: ItemEncoder, loaded: LoadedSequence, parts: Parts | None = None
    ) -> None:
        self._texts = texts
        self._model = loaded.model
        self._parts = parts
        self._number_of = {item_id: number for number, item_id in enumerate(loaded.item_ids)}

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._model.shape.dim + (self._parts.text_dim if self._parts else 0)

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Encode items; (N, D), unit rows, row i belongs to items[i].

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
        """
        ids = [self._number_of.get(item.item_id, -1) for item in items]
        return self._project(self._texts.encode_items(items), torch.tensor(ids, dtype=torch.long))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; (N, D), unit rows; an empty text gives a row of zeros.

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
        """
        return self._project(self._texts.encode_texts(texts), None)

    def _project(self, texts: NDArray[np.float32], ids: torch.Tensor | None) -> NDArray[np.float32]:
        with torch.inference_mode():
            learned = unit(self._model.items(torch.from_numpy(texts), ids).numpy())
        if self._parts is None:
            return learned
        return self._parts.join(learned, unit(texts[:, : self._parts.text_dim]))


class SequenceUserEncoder:
    """Reads the behaviours of a window with self-attention; see :mod:`encoder.sequence_model`.

    Nothing is kept of a user between two calls: late events and windows that slide would make
    cached attention states wrong, and 50 events are cheap. Safe to call from several threads.
    """

    def __init__(
        self, items: ItemEncoder, model: SequenceModel, device: torch.device, bad_rating: float
    ) -> None:
        self._items = items
        self._device = device
        self._bad_rating = bad_rating
        self._dim = model.shape.dim
        # A device of another kind gains nothing from a model of this size.
        self._runner: _Runner = (
            StagedSequence(model, device) if device.type == "cuda" else PackedSequence(model)
        )
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    def n_tokens(self, window: BehaviourWindow) -> int:
        """Estimate the cost: an event is a token, a search adds those of its text."""
        return n_event_tokens(window)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        """Encode one micro-batch; see :class:`interest.ports.UserEncoder`.

        A window of which only events that push away are known gives zeros.

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
            FloatingPointError: a vector of an item is NaN; the other windows are fine alone.
        """
        batch = sequence_input(windows, items, self._items, self._bad_rating)
        if not len(batch.items):
            return np.zeros((len(windows), self._dim), np.float32)
        try:
            with self._lock:
                encoded = self._runner.encode(*batch)
        except RuntimeError as error:
            if self._device.type != "cuda":
                raise  # a bug, not a sick device: retrying would hide it
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise EncoderUnavailable(f"device {self._device} failed: {reason}") from error
        if not np.isfinite(encoded).all():
            raise FloatingPointError("the sequence encoder gives NaN or infinity")
        return unit(encoded)
