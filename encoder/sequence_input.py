"""Windows as the arrays that the sequence encoder reads. numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.sequence_model import N_GAPS, N_RATINGS, event_codes
from encoder.sequence_rows import Ints
from interest.encoded_items import EncodedItems
from interest.event import EventType
from interest.item import EncodedItem
from interest.ports import ItemEncoder
from interest.window import BehaviourWindow

#: The code of each type is part of a trained model: append at the end only.
TYPE_CODES: Final = {type_: code for code, type_ in enumerate(EventType)}
_AWAY: Final = [TYPE_CODES[EventType.REMOVE], TYPE_CODES[EventType.RETURN]]
_NO_RATING: Final = np.nan


class SequenceInput(NamedTuple):
    """The events of a micro-batch whose item or query is known, one window after the other.

    Shapes: V distinct items and queries, M events, N windows.
    """

    vectors: NDArray[np.float32]  # (V, D)
    items: Ints  # (M,) row of each event
    codes: Ints  # (M,)
    lengths: Ints  # (N,) 0 for a window that gives no direction


class _Events(NamedTuple):
    """All events of some windows, oldest first, one window after the other."""

    lengths: Ints
    ts: Ints
    types: Ints
    ratings: NDArray[np.float64]  # NaN for none
    names: list[str]
    items: Ints  # number of the item in ``names``, -1 for none
    queries: list[tuple[int, str]]  # place and text of each search without an item


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
    events = _events(windows)
    items = EncodedItems.of(known)
    row_of = np.array([items.rows.get(name, -1) for name in events.names] + [-1], np.int64)
    rows = row_of[events.items]  # (all events,)
    vectors = items.vectors
    if events.queries:
        texts = sorted({text for _, text in events.queries})
        encoded = encoder.encode_texts(texts)  # (Q, D)
        first = len(vectors)
        vectors = np.concatenate([vectors.reshape(first, encoded.shape[1]), encoded])
        row_of_text = {
            text: first + i for i, text in enumerate(texts) if encoded[i].any()
        }  # an empty text says nothing
        for place, text in events.queries:
            rows[place] = row_of_text.get(text, -1)
    window = np.repeat(np.arange(len(windows)), events.lengths)
    bad = np.less_equal(events.ratings, bad_rating)  # NaN compares false
    pulls = (rows >= 0) & ~bad & ~np.isin(events.types, _AWAY)
    has_pull = np.bincount(window[pulls], minlength=len(windows)) > 0
    kept = np.flatnonzero((rows >= 0) & has_pull[window])
    window = window[kept]
    return SequenceInput(
        vectors,
        rows[kept],
        event_codes(
            events.types[kept], _rating_codes(events.ratings[kept]), _gaps(events.ts[kept], window)
        ),
        np.bincount(window, minlength=len(windows)).astype(np.int64),
    )


def _rating_codes(ratings: NDArray[np.float64]) -> Ints:
    halves = np.rint(np.nan_to_num(ratings) * 2).astype(np.int64)
    return np.where(np.isnan(ratings), 0, np.clip(halves, 0, N_RATINGS - 2) + 1)


def _gaps(ts: Ints, window: Ints) -> Ints:
    """Give 0 for the first event of a window, else 1 + the bits of the seconds since the last."""
    seconds = np.diff(ts, prepend=0) // 1000
    _, bits = np.frexp(seconds.astype(np.float64))
    gaps = np.minimum(bits.astype(np.int64) + 1, N_GAPS - 1)
    gaps[np.diff(window, prepend=-1) != 0] = 0
    return gaps


def _events(windows: Sequence[BehaviourWindow]) -> _Events:
    flat = [event for window in windows for event in window.events]
    numbers: dict[str, int] = {}
    return _Events(
        lengths=np.array([len(window.events) for window in windows], np.int64),
        ts=np.array([event.ts for event in flat], np.int64),
        types=np.array([TYPE_CODES[event.type] for event in flat], np.int64),
        ratings=np.array(
            [_NO_RATING if event.rating is None else event.rating for event in flat], np.float64
        ),
        items=np.array(
            [
                -1 if event.item_id is None else numbers.setdefault(event.item_id, len(numbers))
                for event in flat
            ],
            np.int64,
        ),
        names=list(numbers),
        queries=[
            (place, event.text)
            for place, event in enumerate(flat)
            if event.item_id is None and event.text
        ],
    )
