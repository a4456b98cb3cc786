"""Encoded items as one contiguous matrix, found by id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from interest.item import EncodedItem, Item


class EncodedItems(Mapping[str, EncodedItem]):
    """Items of a micro-batch: a read-only mapping by id whose vectors are rows of one matrix.

    ``rows`` gives the row of each id, ``vectors`` is float32 of shape (N, dim), ``items[i]``
    belongs to row i. Nobody changes them once they are made, so another thread may read them.
    """

    __slots__ = ("items_by_row", "rows", "vectors")

    def __init__(self, items: Sequence[Item], vectors: NDArray[np.float32]) -> None:
        self.items_by_row = items
        self.vectors = vectors
        self.rows = {item.item_id: row for row, item in enumerate(items)}

    @classmethod
    def of(cls, items: Mapping[str, EncodedItem]) -> EncodedItems:
        """Give any mapping in this form; itself where it is one already."""
        if isinstance(items, cls):
            return items
        return cls.stacked(items.values())

    @classmethod
    def stacked(cls, encoded: Iterable[EncodedItem]) -> EncodedItems:
        """Put items together, one row each."""
        held = list(encoded)
        vectors = np.stack([one.vector for one in held]) if held else np.zeros((0, 0), np.float32)
        return cls([one.item for one in held], vectors)

    def with_vectors(self, vectors: NDArray[np.float32]) -> EncodedItems:
        """Give the same items with other vectors, (N, any length), row by row."""
        other = EncodedItems((), vectors)
        other.items_by_row, other.rows = self.items_by_row, self.rows
        return other

    def __getitem__(self, item_id: str) -> EncodedItem:
        row = self.rows[item_id]
        return EncodedItem(item=self.items_by_row[row], vector=self.vectors[row])

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def keys(self) -> KeysView[str]:
        """Give the ids; unlike those of any mapping these compare with sets in C."""
        return self.rows.keys()

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.rows
