"""Encoded items in memory, for one writer and many readers.

Rows are appended and never change: a changed item is a new row, and its old row is hidden in the
same step. A reader takes the rows that are shown now and works on them without a lock. When a
fifth of the rows is hidden, the others are copied together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from interest.item import EncodedItem, Item, ItemQuery, ScoredItem
from store.append_array import AppendArray
from store.exact_scan import Coded, coded, nearest
from store.item_columns import ItemColumns
from store.sparse_rows import SparseRows

#: Hidden rows are removed when there are so many, and so large a share of all.
_HIDDEN: Final = 1024
_HIDDEN_SHARE: Final = 0.2

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Item)


class _Rows:
    """Vectors, codes and columns of the same rows, and each row's item as bytes."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self.ids: list[str] = []
        self.items: list[bytes] = []  # a fifth of the memory of objects; the best k are decoded
        self.vectors = AppendArray(np.float32, dim)
        self.codes = AppendArray(np.int8, dim)
        self.scales = AppendArray(np.float32)
        self.error = 0.0
        self.length = 0.0
        self.columns = ItemColumns()
        self.sparse = SparseRows()

    def append(self, encoded: Sequence[EncodedItem]) -> None:
        items = [one.item for one in encoded]
        vectors = np.stack([one.vector for one in encoded])
        held = coded(vectors)
        self.error = max(self.error, held.error)
        self.length = max(self.length, held.length)
        self.ids.extend(item.item_id for item in items)
        self.items.extend(map(_encoder.encode, items))
        self.vectors.append(vectors)
        self.codes.append(held.codes)
        self.scales.append(held.scales)
        self.columns.append(items)
        self.sparse.append([one.sparse for one in encoded])

    def only(self, kept: NDArray[np.intp]) -> _Rows:
        """Copy some rows; numpy does most, since Python code per row would hold up readers."""
        some = _Rows(self._dim)
        n = len(self.ids)
        some.ids = [self.ids[row] for row in kept.tolist()]
        some.items = [self.items[row] for row in kept.tolist()]
        some.error, some.length = self.error, self.length
        for held, copied in (
            (self.vectors, some.vectors),
            (self.codes, some.codes),
            (self.scales, some.scales),
        ):
            copied.append(held.first(n)[kept])
        some.columns = self.columns.only(kept)
        some.sparse = self.sparse.only(kept)
        return some

    def coded(self, n: int) -> Coded:
        return Coded(self.codes.first(n), self.scales.first(n), self.error, self.length)


class _View(NamedTuple):
    """What one search sees: rows, and which of the first (n,) it may give."""

    rows: _Rows
    shown: NDArray[np.bool_]


class ItemTable:
    """Items by id, and the nearest of them.

    :meth:`upsert` and :meth:`remove` are called by one thread at a time; everything else by any.

    Args:
        dim: length of the vectors.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        # Held for what must be seen together, never while anything is computed.
        self._lock = threading.Lock()
        self._rows = _Rows(dim)
        self._shown = AppendArray(np.bool_)
        self._row_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._row_of)

    def upsert(self, items: Iterable[EncodedItem]) -> None:
        """Add or replace items with non-zero, finite vectors; of one id the last counts."""
        latest = {encoded.item.item_id: encoded for encoded in items}
        if not latest:
            return
        first = len(self._rows.ids)
        self._rows.append(list(latest.values()))
        with self._lock:
            self._hide(latest)
            self._row_of.update(zip(latest, range(first, first + len(latest)), strict=True))
            self._shown.append(np.ones(len(latest), np.bool_))
        self._tidy()

    def remove(self, item_ids: Iterable[str]) -> None:
        """Remove items; unknown ids are fine."""
        with self._lock:
            self._hide(item_ids)
        self._tidy()

    def _hide(self, item_ids: Iterable[str]) -> None:
        shown = self._shown.first(len(self._shown))
        for item_id in item_ids:
            row = self._row_of.pop(item_id, None)
            if row is not None:
                shown[row] = False

    def _tidy(self) -> None:
        """Copy the rows that are shown together where too many are not."""
        n_hidden = len(self._shown) - len(self._row_of)
        if n_hidden < max(_HIDDEN, _HIDDEN_SHARE * len(self._shown)):
            return
        kept = np.flatnonzero(self._shown.first(len(self._shown)))
        rows = self._rows.only(kept)
        shown = AppendArray(np.bool_)
        shown.append(np.ones(len(kept), np.bool_))
        row_of = {item_id: row for row, item_id in enumerate(rows.ids)}
        with self._lock:
            self._rows, self._shown, self._row_of = rows, shown, row_of

    def get(self, item_id: str) -> EncodedItem | None:
        """Give one item; None for an unknown id."""
        with self._lock:
            rows, row = self._rows, self._row_of.get(item_id)
        if row is None:
            return None
        vector = rows.vectors.first(row + 1)[row].copy()
        item = _decoder.decode(rows.items[row])
        return EncodedItem(item=item, vector=vector, sparse=rows.sparse.get(row))

    def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Find the nearest items, best first, ties by item id, as an exhaustive search would.

        Scores that are equal in float32 tie. The query's vectors have the table's dimension.
        """
        rows, shown = self._view(query.exclude)
        n = len(shown)
        found = nearest(
            query.vectors,
            query.k,
            rows.columns.passing(query.filter, shown),
            rows.vectors.first(n),
            rows.coded(n),
            rows.sparse.scores(query.sparse, n) if query.sparse.n else None,
        )
        ranked = sorted(
            (-score, rows.ids[row], row)
            for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
        )
        return [
            ScoredItem(item=_decoder.decode(rows.items[row]), score=-negative)
            for negative, _, row in ranked[: query.k]
        ]

    def _view(self, exclude: Iterable[str]) -> _View:
        with self._lock:
            shown = self._shown.first(len(self._shown)).copy()
            for item_id in exclude:
                row = self._row_of.get(item_id)
                if row is not None:
                    shown[row] = False
            return _View(self._rows, shown)
