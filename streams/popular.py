"""What is popular: decayed counts of positive events per item, derived from the windows.

A count kept beside the windows would be counted twice when events are read again. So the counts
are integers per item and day, moved by what enters and leaves windows: exact, and gone with the
window of a person who is forgotten.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from interest.event import TYPE_CODES, EventType
from interest.fold import Change
from interest.item_table import ItemTable
from interest.window import BehaviourWindow

_DAY_MS: Final = 86_400_000
#: Bits of the day in a key; the item's number lies above them.
_DAY_BITS: Final = 24
_POSITIVE: Final = np.zeros(256, bool)
_POSITIVE[
    [
        TYPE_CODES[type_]
        for type_ in (
            EventType.VIEW,
            EventType.CLICK,
            EventType.CART,
            EventType.FAVOURITE,
            EventType.PURCHASE,
            EventType.REVIEW,
        )
    ]
] = True
#: Bytes of events noted before they are counted in one go: 12 an event.
_NOTED_BYTES: Final = 1_500_000
#: Places for counts, for each key there is, up to which they need not be sorted.
_DENSE: Final = 8

_Noted = list[tuple[bytes, bytes]]


class PopularItems:
    """Counts of one partition; windows are of the table ``items``."""

    def __init__(self, items: ItemTable) -> None:
        self._items = items
        self._entered: _Noted = []
        self._left: _Noted = []
        self._n_noted = 0
        #: Item's number and day of each count that is not 0, in order: (K,).
        self._keys = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)

    def move(self, change: Change) -> None:
        """Move the counts by what entered and left a window."""
        _, entered_words, entered_items, left_words, left_items = change
        if entered_words:
            self._entered.append((entered_words, entered_items))
        if left_words:
            self._left.append((left_words, left_items))
        self._n_noted += len(entered_words) + len(left_words)
        if self._n_noted > _NOTED_BYTES:
            self.count()

    def add(self, window: BehaviourWindow) -> None:
        """Count a window that is new here."""
        self.move(Change(window, *window.words_and_items(), b"", b""))

    def drop(self, window: BehaviourWindow) -> None:
        """Take a window out of the counts."""
        self.move(Change(window, b"", b"", *window.words_and_items()))

    def renumber(self, items: ItemTable) -> None:
        """Go over to another table of items."""
        self.count()
        numbers, days = self._keys >> _DAY_BITS, self._keys & ((1 << _DAY_BITS) - 1)
        old, places = np.unique(numbers, return_inverse=True)
        new = np.array(
            [items.number(self._items.id_of(number)) for number in old.tolist()], np.int64
        )
        self._items = items
        if len(new):
            self._set(new[places] << _DAY_BITS | days, self._counts)

    def count(self) -> None:
        """Bring the counts up to what was noted, and let the notes go."""
        entered, left = _keys(self._entered), _keys(self._left)
        self._entered, self._left, self._n_noted = [], [], 0
        if len(entered) or len(left):
            self._set(
                np.concatenate((self._keys, entered, left)),
                np.concatenate((self._counts, np.ones_like(entered), -np.ones_like(left))),
            )

    def _set(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        numbers, days = keys >> _DAY_BITS, keys & ((1 << _DAY_BITS) - 1)
        first = int(days.min())
        n_days = int(days.max()) - first + 1
        if (int(numbers.max()) + 1) * n_days <= _DENSE * len(keys):
            dense = np.bincount(numbers * n_days + (days - first), counts).astype(np.int64)
            filled = np.flatnonzero(dense)
            self._keys = filled // n_days << _DAY_BITS | filled % n_days + first
            self._counts = dense[filled]
            return
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        firsts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        totals = np.add.reduceat(counts[order], firsts)
        left = totals != 0
        self._keys, self._counts = keys[firsts][left], totals[left]

    def top(self, k: int, half_life_days: float) -> dict[str, float]:
        """Give the ``k`` most popular items: item id → log2 of Σ count × 2^(day / half-life).

        Forward decay (Cormode et al., 2009): scores of different partitions and moments compare
        without a clock, since only the day of the event counts. In log2, as 2^day overflows.
        """
        self.count()
        if not len(self._keys):
            return {}
        numbers = self._keys >> _DAY_BITS
        days = (self._keys & ((1 << _DAY_BITS) - 1)).astype(np.float64)
        firsts = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
        lengths = np.diff(np.append(firsts, len(numbers)))
        # The days of an item are in order. Counted back from its newest, no term overflows.
        newest = days[firsts + lengths - 1]
        terms = self._counts * 2.0 ** ((days - np.repeat(newest, lengths)) / half_life_days)
        scores = newest / half_life_days + np.log2(np.add.reduceat(terms, firsts))
        if len(scores) > k:
            # All that tie with the last one, for the id decides between them.
            least = np.partition(scores, len(scores) - k)[len(scores) - k]
            best = np.flatnonzero(scores >= least)
        else:
            best = np.arange(len(scores))
        names = self._items.names
        ranked = sorted(
            ((scores[i], names[numbers[firsts[i]]]) for i in best.tolist()), reverse=True
        )
        return {item_id: float(score) for score, item_id in ranked[:k]}


def _keys(noted: _Noted) -> NDArray[np.int64]:
    """Give the key of each positive event with an item."""
    words = np.frombuffer(b"".join([words for words, _ in noted]), "<u8")
    items = np.frombuffer(b"".join([items for _, items in noted]), "<u4")
    counts = _POSITIVE[(words >> 8).astype(np.uint8)] & (items > 0)
    days = (words[counts] >> 16) // _DAY_MS
    keys: NDArray[np.int64] = items[counts].astype(np.int64) << _DAY_BITS | days.astype(np.int64)
    return keys
