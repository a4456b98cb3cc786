"""Windows as the arrays that the sequence encoder reads. numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.sequence_model import N_GAPS, N_RATINGS, event_codes
from encoder.sequence_rows import Ints
from interest.columns import Columns, columns, rare_of
from interest.encoded_items import EncodedItems
from interest.event import TYPE_CODES, EventType
from interest.item import EncodedItem
from interest.ports import ItemEncoder
from interest.window import HAS_RATING, HAS_TEXT, BehaviourWindow

_AWAY: Final = [TYPE_CODES[EventType.REMOVE], TYPE_CODES[EventType.RETURN]]


class SequenceInput(NamedTuple):
    """The events of a micro-batch whose item or query is known, one window after the other.

    Shapes: V distinct items and queries, M events, N windows.
    """

    vectors: NDArray[np.float32]  # (V, D)
    items: Ints  # (M,) row of each event
    codes: Ints  # (M,)
    lengths: Ints  # (N,) 0 for a window that gives no direction


def sequence_input(
    windows: Sequence[BehaviourWindow],
    known: Mapping[str, EncodedItem],
    encoder: ItemEncoder,
    bad_rating: float,
) -> SequenceInput:
    """Lay a micro-batch out for the model.

    Events of unknown items are passed over, as if they had not happened. A window that only pushes
    away (returns, removals, ratings of at most ``bad_rating``) gives no direction.
    """
    events = columns(windows)
    items = EncodedItems.of(known)
    numbers, places = np.unique(events.items, return_inverse=True)
    names = events.names
    rows = np.array(
        [items.rows.get(names[number], -1) if number else -1 for number in numbers.tolist()],
        np.int64,
    )[places]  # (all events,)
    ratings, queries = said(windows, events)
    vectors = items.vectors
    if queries:
        texts = sorted(set(queries.values()))
        encoded = encoder.encode_texts(texts)  # (Q, D)
        first = len(vectors)
        vectors = np.concatenate([vectors.reshape(first, encoded.shape[1]), encoded])
        row_of = {text: first + i for i, text in enumerate(texts) if encoded[i].any()}
        for place, text in queries.items():
            rows[place] = row_of.get(text, -1)  # an empty text says nothing
    window = np.repeat(np.arange(len(windows)), np.diff(events.starts))
    bad = np.less_equal(ratings, bad_rating)  # NaN compares false
    pulls = (rows >= 0) & ~bad & ~np.isin(events.types, _AWAY)
    has_pull = np.bincount(window[pulls], minlength=len(windows)) > 0
    kept = np.flatnonzero((rows >= 0) & has_pull[window])
    window = window[kept]
    codes = event_codes(
        events.types[kept].astype(np.int64),
        rating_codes(ratings[kept]),
        gap_codes(events.ts[kept], window),
    )
    lengths = np.bincount(window, minlength=len(windows)).astype(np.int64)
    return SequenceInput(vectors, rows[kept], codes, lengths)


def said(
    windows: Sequence[BehaviourWindow], events: Columns
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Give the rating of each event, NaN for none, and the texts of searches without an item."""
    ratings = np.full(len(events.ts), np.nan)
    queries: dict[int, str] = {}
    asked = (events.flags & HAS_TEXT > 0) & (events.items == 0)
    says = np.flatnonzero(asked | (events.flags & HAS_RATING > 0))
    owners = np.unique(np.searchsorted(events.starts, says, side="right") - 1)
    for number in owners.tolist():
        first = int(events.starts[number])
        for position, rare in rare_of(windows[number]):
            place = first + position
            if rare.rating is not None:
                ratings[place] = rare.rating
            if asked[place] and rare.text:
                queries[place] = rare.text
    return ratings, queries


def rating_codes(ratings: NDArray[np.float64]) -> Ints:
    halves = np.rint(np.nan_to_num(ratings) * 2).astype(np.int64)
    return np.where(np.isnan(ratings), 0, np.clip(halves, 0, N_RATINGS - 2) + 1)


def gap_codes(ts: Ints, window: Ints) -> Ints:
    """Give 0 for the first event of a window, else 1 + the bits of the seconds since the last."""
    seconds = np.diff(ts, prepend=0) // 1000
    _, bits = np.frexp(seconds.astype(np.float64))
    gaps = np.minimum(bits.astype(np.int64) + 1, N_GAPS - 1)
    gaps[np.diff(window, prepend=-1) != 0] = 0
    return gaps
