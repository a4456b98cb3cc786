"""All behaviours of a log as arrays, user by user in time order, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoder.sequence_input import gap_codes, rating_codes, said
from encoder.sequence_model import event_codes
from encoder.sequence_rows import Ints
from interest.columns import columns
from interest.errors import BadInput
from interest.event import TYPE_CODES, EventType
from interest.item import Item
from interest.window import BehaviourWindow

#: A user needs so many behaviours that two are left to train on when the newest is held out.
_MIN_HELD_OUT: Final = 3
_AWAY: Final = [TYPE_CODES[EventType.REMOVE], TYPE_CODES[EventType.RETURN]]

Bools = NDArray[np.bool_]


class Histories(NamedTuple):
    """What users did, and with what.

    Shapes: U users, N events, one user after the other, each oldest first; V items and Q queries.
    """

    windows: Sequence[BehaviourWindow]  # U, each whole
    items: Sequence[Item]  # V; those that only the log knows have no title
    queries: Sequence[str]  # Q
    starts: Ints  # (U + 1,)
    places: Ints  # (N,) position of the event in its user's window
    rows: Ints  # (N,) item, or V + query
    ts: Ints  # (N,) Unix ms
    kinds: Ints  # (N,) type and rating: the code of the event as the first of a window
    gaps: Ints  # (N,) what the time since the event before adds to that code
    pulls: Bools  # (N,) an item that the user was drawn to: it can be a target

    @property
    def fingerprint(self) -> str:
        """The hash of events and items, in whatever order they came."""
        digest = hashlib.blake2b(digest_size=16)
        for window in self.windows:
            digest.update(msgspec.msgpack.encode((window.subject_id, window.content())))
        for item in self.items:
            digest.update(msgspec.msgpack.encode(item))
        return digest.hexdigest()


class Split(NamedTuple):
    """Which events are trained on, and the one that is held out of some users."""

    ends: Ints  # (U,) end of the events to train on, exclusive
    users: Ints  # (n,) those with a held-out event
    targets: Ints  # (n,) the event


def histories_of(
    windows: Sequence[BehaviourWindow], items: Sequence[Item], bad_rating: float
) -> Histories:
    """Lay a log out for training.

    Searches without an item are read by their text; events that name neither are passed over.
    Returns, removals and ratings of at most ``bad_rating`` are read, and never a target.

    Args:
        windows: one per user, holding the behaviours to train on; in any order.
        items: the catalogue, in any order; of several with one id the last counts.

    Raises:
        BadInput: there is nothing to train on.
    """
    windows = sorted(windows, key=lambda window: window.subject_id)
    if not windows:
        raise BadInput("the log holds no behaviour: there is nothing to train on")
    events = columns(windows)
    used = {events.names[number] for number in np.unique(events.items).tolist() if number}
    by_id = {item_id: Item(item_id=item_id, title="") for item_id in used}
    by_id.update((item.item_id, item) for item in items)
    catalogue = [by_id[item_id] for item_id in sorted(by_id)]
    row_of = {item.item_id: row for row, item in enumerate(catalogue)}
    numbers, places = np.unique(events.items, return_inverse=True)
    rows = np.array([row_of[events.names[n]] if n else -1 for n in numbers.tolist()], np.int64)
    rows = rows[places]
    ratings, texts = said(windows, events)
    queries = sorted({text for text in texts.values() if text.strip()})
    row_of_query = {text: len(catalogue) + i for i, text in enumerate(queries)}
    for place, text in texts.items():
        rows[place] = row_of_query.get(text, -1)
    n_events = np.diff(events.starts)
    user = np.repeat(np.arange(len(windows)), n_events)
    kept = np.flatnonzero(rows >= 0)
    types = events.types.astype(np.int64)
    kinds = event_codes(types, rating_codes(ratings), np.zeros_like(types))
    starts = np.zeros(len(windows) + 1, np.int64)
    np.cumsum(np.bincount(user[kept], minlength=len(windows)), out=starts[1:])
    pulls = (rows < len(catalogue)) & ~np.less_equal(ratings, bad_rating)
    pulls &= ~np.isin(types, _AWAY)
    return Histories(
        windows=windows,
        items=catalogue,
        queries=queries,
        starts=starts,
        places=(np.arange(len(user)) - events.starts[user])[kept],
        rows=rows[kept],
        ts=events.ts[kept],
        kinds=kinds[kept],
        gaps=gap_codes(events.ts[kept], user[kept]),
        pulls=pulls[kept],
    )


def split_newest(histories: Histories, n_users: int, seed: int) -> Split:
    """Hold the newest event of users out of training; where times tell, of untied ones alone count.

    An event is tied to the one before it where both have the same time: then their order is that
    of the log, not of what the user did. Without any untied user all of them count. The newest
    event is held out of every user alike, so what is learned does not depend on which count.

    Args:
        n_users: so many users at most are validated on, drawn by ``seed``.
    """
    starts, stops = histories.starts[:-1], histories.starts[1:]
    last = stops - 1
    held_out = stops - starts >= _MIN_HELD_OUT
    held_out[held_out] &= histories.pulls[last[held_out]]
    users = np.flatnonzero(held_out)
    untied = users[histories.ts[last[users]] > histories.ts[last[users] - 1]]
    counted = untied if len(untied) else users
    if len(counted) > n_users:
        counted = np.sort(np.random.default_rng(seed).choice(counted, n_users, replace=False))
    return Split(np.where(held_out, last, stops), counted, last[counted])
