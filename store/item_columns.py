"""What filters ask of items, by column: the rows that pass are found without a loop over items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from interest.item import Item, ItemFilter
from store.append_array import AppendArray

_ABSENT: Final = -1


class _Labels:
    """One label per row as a number, or none."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.codes = AppendArray(np.int32)

    def append(self, labels: Iterable[str | None]) -> None:
        codes = [
            _ABSENT if label is None else self._numbers.setdefault(label, len(self._numbers))
            for label in labels
        ]
        self.codes.append(np.array(codes, np.int32))

    def only(self, kept: NDArray[np.intp]) -> _Labels:
        some = _Labels()
        some._numbers = dict(self._numbers)
        some.codes.append(self.codes.first(len(self.codes))[kept])
        return some

    def equal(self, label: str, rows: NDArray[Any] | slice, n: int) -> NDArray[np.bool_]:
        number = self._numbers.get(label)
        codes = self.codes.first(n)[rows]
        return codes == number if number is not None else np.zeros(len(codes), np.bool_)


class ItemColumns:
    """The columns of rows that are appended and never change.

    Meaning of every condition: :func:`store.matching.matches`.
    """

    def __init__(self) -> None:
        self._available = AppendArray(np.bool_)
        self._price = AppendArray(np.float64)  # NaN passes no bound
        self._brand = _Labels()
        self._domain = _Labels()
        self._in_category: dict[str, AppendArray] = {}  # row numbers, ascending

    def append(self, items: Sequence[Item]) -> None:
        """Add rows at the end; by one thread at a time."""
        by_category: dict[str, list[int]] = {}
        for row, item in enumerate(items, start=len(self._available)):
            for category in dict.fromkeys(item.categories):
                by_category.setdefault(category, []).append(row)
        for category, rows in by_category.items():
            held = self._in_category.get(category)
            if held is None:
                held = self._in_category[category] = AppendArray(np.int32)
            held.append(np.array(rows, np.int32))
        self._brand.append(item.brand for item in items)
        self._domain.append(item.domain for item in items)
        prices = [np.nan if item.price is None else item.price for item in items]
        self._price.append(np.array(prices, np.float64))
        self._available.append(np.array([item.available for item in items], np.bool_))

    def only(self, kept: NDArray[np.intp]) -> ItemColumns:
        """Copy some rows, given ascending."""
        some = ItemColumns()
        n = len(self._available)
        some._available.append(self._available.first(n)[kept])
        some._price.append(self._price.first(n)[kept])
        some._brand, some._domain = self._brand.only(kept), self._domain.only(kept)
        new_row = np.full(n, _ABSENT, np.int32)
        new_row[kept] = np.arange(len(kept), dtype=np.int32)
        for category, held in self._in_category.items():
            rows = new_row[held.first(len(held))]
            rows = rows[rows != _ABSENT]
            if len(rows):
                some._in_category[category] = AppendArray(np.int32)
                some._in_category[category].append(rows)
        return some

    def passing(self, where: ItemFilter, shown: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Give the rows that a filter lets through, ascending.

        Args:
            shown: (n,), false for rows that are not to be found; later rows are not, either.
        """
        n = len(shown)
        if where.category is None:
            return np.flatnonzero(shown & self._conditions(where, slice(None), n))
        held = self._in_category.get(where.category)
        if held is None:
            return np.empty(0, np.intp)
        rows = held.first(len(held)).astype(np.intp)
        rows = rows[: np.searchsorted(rows, n)]
        rows = rows[shown[rows]]
        return rows[self._conditions(where, rows, n)]

    def _conditions(
        self, where: ItemFilter, rows: NDArray[np.intp] | slice, n: int
    ) -> NDArray[np.bool_]:
        """Tell for each of ``rows`` whether all conditions hold but that on the category."""
        passed = np.ones(n, np.bool_)[rows]
        if where.only_available:
            passed &= self._available.first(n)[rows]
        if where.brand is not None:
            passed &= self._brand.equal(where.brand, rows, n)
        if where.domain is not None:
            passed &= self._domain.equal(where.domain, rows, n)
        if where.min_price is not None:
            passed &= self._price.first(n)[rows] >= where.min_price
        if where.max_price is not None:
            passed &= self._price.first(n)[rows] <= where.max_price
        return passed
