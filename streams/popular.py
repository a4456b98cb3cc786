"""What is popular: decayed counts of positive events per item, derived from the windows.

A count kept beside the windows would be counted twice when events are read again. So the counts
are integers per item and day, moved by what enters and leaves windows: exact, and gone with the
window of a person who is forgotten.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Final

from interest.event import Event, EventType

_DAY_MS: Final = 86_400_000
_POSITIVE: Final = frozenset(
    {
        EventType.VIEW,
        EventType.CLICK,
        EventType.CART,
        EventType.FAVOURITE,
        EventType.PURCHASE,
        EventType.REVIEW,
    }
)


class PopularItems:
    """Counts of one partition."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[int, int]] = {}

    def replace(self, old: Sequence[Event], new: Sequence[Event]) -> None:
        """Move the counts from a window's old content to its new one."""
        # A fold keeps the events that stay, so most are the same objects and cancel out.
        before, after = {id(event) for event in old}, {id(event) for event in new}
        for event in old:
            if id(event) not in after:
                self._add(event, -1)
        for event in new:
            if id(event) not in before:
                self._add(event, 1)

    def _add(self, event: Event, n: int) -> None:
        if event.item_id is None or event.type not in _POSITIVE:
            return
        days = self._counts.setdefault(event.item_id, {})
        day = event.ts // _DAY_MS
        count = days.get(day, 0) + n
        if count:
            days[day] = count
        else:
            del days[day]
            if not days:
                del self._counts[event.item_id]

    def top(self, k: int, half_life_days: float) -> dict[str, float]:
        """Give the ``k`` most popular items: item id → log2 of Σ count × 2^(day / half-life).

        Forward decay (Cormode et al., 2009): scores of different partitions and moments compare
        without a clock, since only the day of the event counts. In log2, as 2^day overflows.
        """
        scores = {
            item_id: _log2_sum(days, half_life_days) for item_id, days in self._counts.items()
        }
        return dict(heapq.nlargest(k, scores.items(), key=lambda entry: (entry[1], entry[0])))


def _log2_sum(days: dict[int, int], half_life_days: float) -> float:
    newest = max(days)
    total = sum(n * 2.0 ** ((day - newest) / half_life_days) for day, n in days.items())
    return newest / half_life_days + math.log2(total)
