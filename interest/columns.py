"""A micro-batch of windows as arrays, without an object for each event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interest.item_table import ItemTable
from interest.rare import Rare, fields
from interest.window import (
    EVENT,
    HAS_DWELL,
    HAS_RATING,
    HAS_TEXT,
    ID,
    WORD,
    BehaviourWindow,
)

#: Flags of events that say more than their type does.
SAYS: Final = HAS_TEXT | HAS_RATING | HAS_DWELL


class Columns(NamedTuple):
    """All events of some windows, one window after the other, each oldest first.

    Shapes: B windows, N events; window b is ``starts[b]:starts[b + 1]``.
    """

    #: (B + 1,) int64.
    starts: NDArray[np.int64]
    #: (N,) int64, Unix ms.
    ts: NDArray[np.int64]
    #: (N,) uint8: codes of :data:`interest.event.TYPES`.
    types: NDArray[np.uint8]
    #: (N,) uint8: bits of :mod:`interest.window`.
    flags: NDArray[np.uint8]
    #: (N,) uint32: numbers of ``table``; 0 for no item.
    items: NDArray[np.uint32]
    #: What the numbers mean; another object after a compaction, so cache by its identity.
    table: ItemTable

    @property
    def names(self) -> Sequence[str]:
        """The item id of each number."""
        return self.table.names


def columns(windows: Sequence[BehaviourWindow]) -> Columns:
    """Lay windows out as arrays.

    The numbers are those of the first window's table; windows of another are translated.

    Raises:
        ValueError: there is no window.
    """
    if not windows:
        raise ValueError("columns of no window")
    table = windows[0].items
    packed = [window.moved(table).data for window in windows]
    sizes = [len(data) // EVENT for data in packed]
    starts = np.zeros(len(packed) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    words = np.frombuffer(
        b"".join([data[ID * n : (ID + WORD) * n] for data, n in zip(packed, sizes, strict=True)]),
        "<u8",
    )
    items = np.frombuffer(
        b"".join([data[(ID + WORD) * n :] for data, n in zip(packed, sizes, strict=True)]), "<u4"
    )
    return Columns(
        starts,
        (words >> 16).astype(np.int64),
        (words >> 8).astype(np.uint8),
        words.astype(np.uint8),
        items,
        table,
    )


def item_ids_of(windows: Sequence[BehaviourWindow]) -> list[str]:
    """Give the distinct items of some windows; each once, in the order of their numbers."""
    if not windows:
        return []
    table = windows[0].items
    packed = [window.moved(table).data for window in windows]
    numbers = np.frombuffer(
        b"".join([data[(ID + WORD) * (len(data) // EVENT) :] for data in packed]), "<u4"
    )
    names = table.names
    return [names[number] for number in np.unique(numbers).tolist() if number]


def rare_of(window: BehaviourWindow) -> list[tuple[int, Rare]]:
    """Give the events that carry text, rating or dwell time, by position from the oldest."""
    if not window.rare:
        return []
    return [
        (position, fields(row.rare))
        for position, row in enumerate(window.rows())
        if row.flags & SAYS
    ]
