"""A vector of two parts, and the encoders that make and read it.

Items and users are the vector of a sequence model and the half-whitened text vector, side by side
and each scaled, so that one dot product is the weighted sum of two cosines:
``(1 - share) · cos(sequence) + share · cos(text)``. What the sequence model learned and what texts
say err in different places; the text also knows items that training never saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interest.encoded_items import EncodedItems
from interest.item import EncodedItem, Item, unit
from interest.ports import ItemEncoder, UserEncoder
from interest.window import BehaviourWindow


class Parts(NamedTuple):
    """Where the parts lie; ``share`` is the weight of the text's cosine, 0 to 1."""

    sequence_dim: int
    text_dim: int
    share: float

    def join(self, sequence: NDArray[np.float32], text: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give (N, D) unit rows; a part of zeros leaves the row to the other."""
        return unit(
            np.concatenate(
                [sequence * math.sqrt(1 - self.share), text * math.sqrt(self.share)], axis=1
            )
        )

    def sequence(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the first part of (N, D) vectors, unit rows."""
        return unit(vectors[:, : self.sequence_dim])

    def text(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the second part of (N, D) vectors, unit rows."""
        return unit(vectors[:, self.sequence_dim :])


class PartOfItems:
    """Gives one part of an item encoder's vectors, for the encoder that reads no other."""

    def __init__(self, items: ItemEncoder, parts: Parts, *, text: bool) -> None:
        self._items = items
        self._cut = parts.text if text else parts.sequence
        self.dim = parts.text_dim if text else parts.sequence_dim

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Encode items; see :class:`interest.ports.ItemEncoder`."""
        return self._cut(self._items.encode_items(items))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; see :class:`interest.ports.ItemEncoder`."""
        return self._cut(self._items.encode_texts(texts))


class JoinedUserEncoder:
    """Encodes each part of a user by its own encoder: the model, and decay over texts.

    Args:
        sequence: reads the first part of the items' vectors.
        text: reads the second.
    """

    def __init__(self, sequence: UserEncoder, text: UserEncoder, parts: Parts) -> None:
        self._sequence = sequence
        self._text = text
        self._parts = parts

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._parts.sequence_dim + self._parts.text_dim

    def n_tokens(self, window: BehaviourWindow) -> int:
        """Estimate the cost, that of the sequence model."""
        return self._sequence.n_tokens(window)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        """Encode one micro-batch; see :class:`interest.ports.UserEncoder`.

        A window of which only events that push away are known gives zeros.

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
            FloatingPointError: a vector of an item is NaN; the other windows are fine alone.
        """
        held = EncodedItems.of(items)
        read = self._sequence.encode(windows, held.with_vectors(self._parts.sequence(held.vectors)))
        texts = self._text.encode(windows, held.with_vectors(self._parts.text(held.vectors)))
        return self._parts.join(read, texts)
