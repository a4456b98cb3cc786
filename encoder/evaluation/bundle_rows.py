"""The row ``one-vector``: the users and items of a model bundle, compared by one dot product."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.bundle_folder import BundleParts
from encoder.evaluation.dataset import Dataset
from encoder.evaluation.histories import histories, item_table
from encoder.evaluation.protocols import Cases
from encoder.evaluation.ranking import Ranker
from encoder.evaluation.vectors import VectorRanker
from encoder.factory import Encoders, encoders_of
from encoder.items import TextItemEncoder
from encoder.text_encoder import TextEncoder
from interest.bundle import ModelBundle
from interest.encoded_items import EncodedItems
from interest.item import Item
from interest.ports import ItemEncoder

ONE_VECTOR: Final = "one-vector"
_WINDOWS_AT_ONCE: Final = 1_024


class CatalogueTexts:
    """Gives the text vectors of a catalogue from a table; queries are encoded.

    Args:
        texts: encodes the queries.
        row_of: the row of each item's vector.
        vectors: (N, E).
    """

    def __init__(
        self, texts: ItemEncoder, row_of: dict[str, int], vectors: NDArray[np.float32]
    ) -> None:
        self._texts = texts
        self._row_of = row_of
        self._vectors = vectors

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._texts.dim

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Encode items of the catalogue; see :class:`interest.ports.ItemEncoder`."""
        return self._vectors[[self._row_of[item.item_id] for item in items]]

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; see :class:`interest.ports.ItemEncoder`."""
        return self._texts.encode_texts(texts)


class EncodedBundle(NamedTuple):
    """A bundle over the catalogue of a dataset."""

    encoders: Encoders
    #: (N, D) in the order of the file; zeros for an item that the bundle can say nothing of.
    items: NDArray[np.float32]
    #: The items whose row is not zero.
    known: EncodedItems

    @property
    def bundle(self) -> ModelBundle:
        """The bundle."""
        return self.encoders.bundle

    @property
    def ranker(self) -> Ranker:
        """Rank by the dot product of user and item vectors."""
        return VectorRanker(self.encoders.users, self.items, self.known)

    def user_vectors(self, dataset: Dataset, cases: Cases) -> NDArray[np.float32]:
        """Give the vectors that the users of some targets had before them.

        Returns:
            (U, D), users in the order of the file, zeros for a user without a target; of several
            targets the last counts.
        """
        windows = histories(dataset, cases, self.bundle.config.window, item_table(dataset))
        vectors = np.zeros((dataset.n_users, self.items.shape[1]), np.float32)
        for first in range(0, len(cases), _WINDOWS_AT_ONCE):
            batch = list(itertools.islice(windows, _WINDOWS_AT_ONCE))
            vectors[cases.users[first : first + len(batch)]] = self.encoders.users.encode(
                batch, self.known
            )
        return vectors


def encode_bundle(
    parts: BundleParts,
    text_encoder: TextEncoder,
    dataset: Dataset,
    text_vectors: NDArray[np.float32],
    device: torch.device,
) -> EncodedBundle:
    """Encode the catalogue with the encoders that serve it.

    Args:
        text_encoder: the bundle's own.
        text_vectors: (N, E) of the titles by that model.
    """
    catalogue = dataset.catalogue()
    row_of = {item_id: row for row, item_id in enumerate(dataset.item_ids)}
    texts = CatalogueTexts(TextItemEncoder(text_encoder), row_of, text_vectors)
    encoders = encoders_of(parts, text_encoder, device, texts)
    items = encoders.items.encode_items(catalogue)
    held = np.flatnonzero(items.any(axis=1))
    known = EncodedItems([catalogue[row] for row in held.tolist()], items[held])
    return EncodedBundle(encoders, items, known)
