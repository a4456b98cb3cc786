"""Histories cut into windows that a model is trained on, and those packed into batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from encoder.sequence_rows import Ints, lay_out
from encoder.training.histories import Histories, Split
from interest.window import WindowLimits


class Pieces(NamedTuple):
    """Windows as the worker would hold them; P pieces, each ``first ≤ new < end``.

    A position of a piece is the window that ends there. Pieces overlap, so that hardly a position
    sees less than half a window; what lies before ``new`` was trained on in the piece before.
    """

    first: Ints  # (P,) events
    end: Ints
    new: Ints


class PackedRows(NamedTuple):
    """Some pieces of a batch in R rows of W slots; T of the slots have a target."""

    items: Ints  # (R, W) rows of the catalogue; 0 in an empty slot
    codes: Ints  # (R, W)
    segments: Ints  # (R, W) number of the piece in its row, -1 for an empty slot
    slots: Ints  # (T,) counted over all rows
    targets: Ints  # (T,) events


def cut(histories: Histories, ends: Ints, limits: WindowLimits) -> Pieces:
    """Cut every history into windows of at most ``limits``.

    The last event to train on has nothing behind it, so no piece holds it.

    Args:
        ends: (U,) end of what to train on of each user, exclusive.
    """
    found: list[tuple[int, int, int]] = []
    for start, stop in zip(histories.starts[:-1].tolist(), (ends - 1).tolist(), strict=True):
        times = histories.ts[start:stop]
        first = new = 0
        while new < len(times):
            oldest = int(np.searchsorted(times, times[new] - limits.span_ms, side="right"))
            first = max(first, oldest, new - limits.max_events + 1)
            inside = times[first : first + limits.max_events]
            end = first + int(np.searchsorted(inside, inside[0] + limits.span_ms))
            found.append((start + first, start + end, start + new))
            first, new = first + (end - first + 1) // 2, end
    pieces = np.array(found, np.int64).reshape(-1, 3)
    return Pieces(*pieces.T)


def batches(pieces: Pieces, n_events: int, seed: tuple[int, ...]) -> Iterator[Ints]:
    """Give the pieces of one epoch in batches of about ``n_events``, shuffled by ``seed``."""
    order = np.random.default_rng(seed).permutation(len(pieces.first))
    sizes = np.cumsum((pieces.end - pieces.first)[order])
    n_batches = max(1, round(int(sizes[-1]) / n_events)) if len(sizes) else 0
    borders = (
        np.searchsorted(sizes, sizes[-1] / n_batches * np.arange(1, n_batches)) if n_batches else []
    )
    yield from (batch for batch in np.split(order, borders) if len(batch))


def pack(
    histories: Histories, pieces: Pieces, batch: Ints, is_target: np.ndarray
) -> Iterator[PackedRows]:
    """Lay a batch out in rows as when serving: windows one after the other, kept apart.

    Args:
        batch: which pieces.
        is_target: (N,) events that may be predicted.
    """
    first, end, new = (column[batch] for column in pieces)
    for rows in lay_out(end - first):
        events, slots, places = rows.slots(first)
        shape = (rows.n_rows, rows.width)
        items, codes = np.zeros((2, rows.n_rows * rows.width), np.int64)
        segments = np.full(rows.n_rows * rows.width, -1, np.int64)
        items[slots] = histories.rows[events]
        codes[slots] = histories.kinds[events] + histories.gaps[events]
        codes[rows.starts] = histories.kinds[first[rows.windows]]
        segments[slots] = places
        is_new = events >= np.repeat(new[rows.windows], rows.ends - rows.starts + 1)
        asked = np.flatnonzero(is_new & is_target[events + 1])
        yield PackedRows(
            items.reshape(shape),
            codes.reshape(shape),
            segments.reshape(shape),
            slots[asked],
            events[asked] + 1,
        )


def windows_before_targets(
    histories: Histories, split: Split, limits: WindowLimits
) -> tuple[Ints, Ints, Ints]:
    """Give items, codes and lengths of the windows that validation users had before the target.

    Returns:
        (M,), (M,) and (n,), see :meth:`encoder.sequence_packed.PackedSequence.encode`.
    """
    events: list[Ints] = [np.zeros(0, np.int64)]
    for start, target in zip(
        histories.starts[split.users].tolist(), split.targets.tolist(), strict=True
    ):
        times = histories.ts[max(start, target - limits.max_events) : target]
        oldest = int(np.searchsorted(times, times[-1] - limits.span_ms, side="right"))
        events.append(np.arange(target - len(times) + oldest, target))
    lengths = np.array([len(window) for window in events[1:]], np.int64)
    joined = np.concatenate(events)
    codes = histories.kinds[joined] + histories.gaps[joined]
    firsts = np.cumsum(lengths) - lengths
    codes[firsts] = histories.kinds[joined[firsts]]
    return histories.rows[joined], codes, lengths
