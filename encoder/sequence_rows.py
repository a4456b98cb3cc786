"""Windows of all lengths in rows of one width, without padding. numpy alone.

Windows lie one after the other in a row; attention stays within each (block-diagonal). Long windows
are filled up with short ones, so that hardly a slot is empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Attention costs per event as much as its row is wide, so short windows get narrow rows.
_NARROW: Final = 32
_SHORT: Final = 16
_WIDE: Final = 64
_WIDTH_STEP: Final = 32
#: Below so many events two kinds of rows cost more in calls than they save.
_FEW_EVENTS: Final = 512

Ints = NDArray[np.int64]


class Rows(NamedTuple):
    """Some windows of a micro-batch in rows of ``width`` slots, ordered by where they lie."""

    width: int
    n_rows: int
    #: (U,) the windows.
    windows: Ints
    #: (U,) slot of each window's oldest event and of its newest, counted over all rows.
    starts: Ints
    ends: Ints

    def chunks(self, n_slots: int) -> Iterator[Rows]:
        """Cut into pieces of at most ``n_slots`` slots, and of at least one row."""
        step = max(1, n_slots // self.width)
        for first in range(0, self.n_rows, step):
            n_rows = min(step, self.n_rows - first)
            low, high = np.searchsorted(
                self.starts, (first * self.width, (first + n_rows) * self.width)
            )
            shift = first * self.width
            yield Rows(
                self.width,
                n_rows,
                self.windows[low:high],
                self.starts[low:high] - shift,
                self.ends[low:high] - shift,
            )

    def slots(self, firsts: Ints) -> tuple[Ints, Ints, Ints]:
        """Say which event stands in which slot.

        Args:
            firsts: (N,) place of each window's oldest event among all events.

        Returns:
            (M,) the events, (M,) their slots, (M,) the number of their window in its row.
        """
        lengths = self.ends - self.starts + 1  # (U,)
        before = np.cumsum(lengths) - lengths
        inside = np.arange(int(lengths.sum())) - np.repeat(before, lengths)  # (M,)
        row = self.starts // self.width
        place = np.arange(len(row)) - np.searchsorted(row, row)  # (U,)
        return (
            np.repeat(firsts[self.windows], lengths) + inside,
            np.repeat(self.starts, lengths) + inside,
            np.repeat(place, lengths),
        )


def lay_out(lengths: Ints) -> list[Rows]:
    """Lay windows of these lengths out in rows; those of length 0 are left out.

    Args:
        lengths: (N,) events of each window.
    """
    windows = np.argsort(lengths, kind="stable")
    windows = windows[np.searchsorted(lengths[windows], 1) :]
    if not len(windows):
        return []
    n_events, longest = int(lengths.sum()), int(lengths[windows[-1]])
    if longest <= _NARROW and (n_events < _FEW_EVENTS or longest <= _SHORT):
        return [_pack(lengths, windows, _NARROW)]
    width = max(_WIDE, -(-longest // _WIDTH_STEP) * _WIDTH_STEP)
    n_short = int(np.searchsorted(lengths[windows], _SHORT, side="right"))
    if n_events < _FEW_EVENTS or not n_short:
        return [_pack(lengths, windows, width)]
    return [
        _pack(lengths, windows[:n_short], _NARROW),
        _pack(lengths, windows[n_short:], width),
    ]


def _pack(lengths: Ints, windows: Ints, width: int) -> Rows:
    """Fill rows greedily, longest window first (first-fit decreasing); equal rows are made at once.

    Args:
        windows: ordered by length.
    """
    ordered = lengths[windows]
    sizes, firsts, counts = np.unique(ordered, return_index=True, return_counts=True)
    free = [[int(n), int(at), int(left)] for n, at, left in zip(sizes, firsts, counts, strict=True)]
    starts = np.empty(len(windows), np.int64)
    n_rows = 0
    while free:
        room, pattern = width, list[tuple[list[int], int]]()
        for kind in reversed(free):
            taken = min(kind[2], room // kind[0])
            if taken:
                pattern.append((kind, taken))
                room -= taken * kind[0]
        repeats = min(kind[2] // taken for kind, taken in pattern)
        rows = np.arange(n_rows, n_rows + repeats)[:, None] * width  # (repeats, 1)
        place = 0
        for kind, taken in pattern:
            size, at, _ = kind
            n = repeats * taken
            starts[at : at + n] = (rows + place + np.arange(taken) * size).ravel()
            kind[1] += n
            kind[2] -= n
            place += taken * size
        n_rows += repeats
        free = [kind for kind in free if kind[2]]
    order = np.argsort(starts)
    starts = starts[order]
    return Rows(width, n_rows, windows[order], starts, starts + ordered[order] - 1)
