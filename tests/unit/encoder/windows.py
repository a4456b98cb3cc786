"""Windows in a line or two, and items with vectors that are easy to reckon with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interest.event import Event, EventType
from interest.fold import row_of
from interest.item import EncodedItem, Item
from interest.item_table import SHARED
from interest.window import BehaviourWindow, WindowLimits

DIM = 4
NEWEST_MS = 1_700_000_000_000
HOUR_MS = 3_600_000

#: Four items, one per axis, and one that lies between the first two.
ITEMS = {
    item_id: EncodedItem(
        item=Item(item_id=item_id, title=title), vector=np.array(vector, np.float32)
    )
    for item_id, title, vector in (
        ("mug", "red mug", [1, 0, 0, 0]),
        ("cup", "blue cup", [0, 1, 0, 0]),
        ("lamp", "brass lamp", [0, 0, 1, 0]),
        ("set", "mug and cup", [0.6, 0.8, 0, 0]),
    )
}


class QueryAxis:
    """Stands for the item encoder: every text lies on the last axis, an empty one nowhere."""

    dim = DIM

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        return self.encode_texts([item.text for item in items])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        return np.array([[0, 0, 0, bool(text.strip())] for text in texts], np.float32)


def window(
    *events: tuple[str, str | None] | tuple[str, str | None, dict[str, Any]],
) -> BehaviourWindow:
    """A window of (type, item, other fields), oldest first, an hour apart."""
    folded = []
    for i, (type_, item_id, *more) in enumerate(events):
        fields = dict(more[0]) if more else {}
        age_h = fields.pop("age_h", len(events) - 1 - i)
        folded.append(
            Event(
                event_id=f"e{i:03}",
                user_id="u",
                type=EventType(type_),
                ts=NEWEST_MS - round(age_h * HOUR_MS),
                item_id=item_id,
                **fields,
            )
        )
    limits = WindowLimits()
    empty = BehaviourWindow("u")
    # Not folded: a window may be of any limits.
    return empty.with_rows(row_of(event, "u", SHARED, limits.text_chars) for event in folded)
