"""An event log and its catalogue as a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
import numpy as np

from encoder.evaluation.dataset import Dataset
from interest.errors import BadInput
from interest.event import TYPE_CODES, Event, EventType, id_hash
from interest.item import Item


def dataset_of(events: Iterable[Event], items: Iterable[Item]) -> Dataset:
    """Lay a log out, in whatever order it comes.

    Impressions and events without an item are passed over; of one ``event_id`` the last counts.
    Events of one time stand by the hash of their id, as in a window. Times lose their
    fractions of a second. An item that only the log knows has no title; of several items with
    one id the last counts.

    Raises:
        BadInput: there is no event with an item.
    """
    by_id = {
        event.event_id: event
        for event in events
        if event.item_id is not None and event.type is not EventType.IMPRESSION
    }
    log = sorted(by_id.values(), key=lambda e: (e.user_id, e.ts, id_hash(e.event_id)))
    if not log:
        raise BadInput("the log holds no event with an item: there is nothing to evaluate")
    titles = {event.item_id or "": "" for event in log}
    titles.update((item.item_id, item.title) for item in items)
    item_ids = sorted(titles)
    rows = {item_id: row for row, item_id in enumerate(item_ids)}
    user_ids, n_events = np.unique([event.user_id for event in log], return_counts=True)
    digest = hashlib.blake2b(digest_size=8)
    for part in (log, sorted(titles.items())):
        digest.update(msgspec.msgpack.encode(part))
    ratings = [np.nan if event.rating is None else event.rating for event in log]
    return Dataset(
        item_ids=item_ids,
        titles=[titles[item_id] for item_id in item_ids],
        user_ids=user_ids.tolist(),
        starts=np.concatenate([[0], np.cumsum(n_events)]).astype(np.int64),
        items=np.array([rows[event.item_id or ""] for event in log], np.int32),
        times_s=np.array([event.ts // 1000 for event in log], np.int64),
        types=np.array([TYPE_CODES[event.type] for event in log], np.uint8),
        ratings=np.array(ratings, np.float32),
        fingerprint=digest.hexdigest(),
    )
