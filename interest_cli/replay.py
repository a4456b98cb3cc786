"""Offline replay: a recorded log and a catalogue go in, the vectors of the live run come out.

The same fold, the same encoders and the same checks as the worker, without Kafka and Redis.
Nothing here reads a clock or depends on the order of the log, so a replay can be compared with
a live run user by user: windows to the byte, vectors up to the rounding of batches.

Memory: one window per user and one vector per item that some window holds, never the log.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from interest.bundle import ModelBundle
from interest.encoded_items import EncodedItems
from interest.event import Event
from interest.fold import fold
from interest.item import Item
from interest.item_table import ItemTable
from interest.ports import ItemEncoder, SparseEncoder, UserEncoder
from interest.window import BehaviourWindow, WindowLimits

_EVENTS_PER_FOLD: Final = 16_384
_ITEMS_PER_BATCH: Final = 512
_ROWS_PER_GROUP: Final = 4096

_T = TypeVar("_T")

#: Told what is being done (``items`` or ``users``), how many are done, and of how many.
Progress = Callable[[str, int, int], None]


class LoadedBundle(NamedTuple):
    """A model bundle with its encoders ready to run."""

    bundle: ModelBundle
    item_encoder: ItemEncoder
    user_encoder: UserEncoder
    sparse_encoder: SparseEncoder | None = None


class ReplayedUser(NamedTuple):
    """One user after the last event: the window, and the vector that was encoded from it.

    ``vectors`` is float32 of shape (n_interests, dim) as in a user vector record: rows of unit
    length, and no row where the window gives no usable direction.
    """

    window: BehaviourWindow
    vectors: NDArray[np.float32]

    @property
    def user_id(self) -> str:
        """The subject of the window."""
        return self.window.subject_id

    @property
    def is_cold(self) -> bool:
        """True where no direction is known."""
        return not len(self.vectors)


def replay(
    events: Iterable[Event],
    items: Iterable[Item],
    loaded: LoadedBundle,
    *,
    batch_tokens: int = 16_384,
    progress: Progress | None = None,
) -> Iterator[ReplayedUser]:
    """Give every user of a log with a behaviour, ordered by user id.

    Events may come in any order, and more than once. Of several items with one id the last
    counts, as in the catalogue topic; items that no window holds are not encoded. An item that
    is missing is passed over, as it is live until the catalogue brings it.

    Args:
        events: valid events, as :func:`interest_cli.files.read_events` gives them.
        batch_tokens: tokens in one micro-batch of users at most.

    Raises:
        EncoderUnavailable: the device failed.
    """
    windows = fold_log(events, loaded.bundle.config.window)
    needed = {item_id for window in windows.values() for item_id in window.item_ids}
    catalogue = {item.item_id: item for item in items if item.item_id in needed}
    encoded = encode_items(catalogue, loaded.item_encoder, progress)
    n_done = 0
    ordered = (windows[user_id] for user_id in sorted(windows))
    for batch in _micro_batches(ordered, loaded.user_encoder, batch_tokens):
        rows = loaded.user_encoder.encode(batch, encoded)  # (B, D)
        for window, row in zip(batch, rows, strict=True):
            interests = row[np.newaxis]  # (1, D)
            yield ReplayedUser(window, interests if row.any() else interests[:0])
        n_done += len(batch)
        if progress is not None:
            progress("users", n_done, len(windows))


def fold_log(events: Iterable[Event], limits: WindowLimits) -> dict[str, BehaviourWindow]:
    """Fold a log into the windows of its subjects; a user who only saw impressions has none."""
    windows: dict[str, BehaviourWindow] = {}
    items = ItemTable()
    for chunk in _chunks(events, _EVENTS_PER_FOLD):
        by_subject: defaultdict[str, list[Event]] = defaultdict(list)
        for event in chunk:
            by_subject[event.user_id].append(event)
        for subject_id, new in by_subject.items():
            held = windows.get(subject_id)
            if held is None:
                held = BehaviourWindow(subject_id, items=items)
            folded = fold(held, new, limits)
            if len(folded):
                windows[subject_id] = folded
    return windows


def write_parquet(path: Path, users: Iterable[ReplayedUser], model_id: str) -> int:
    """Write replayed users to a Parquet file; return how many.

    Columns: ``user_id``, ``model_id``, ``vector`` (list of float32, n_interests × dim, row by
    row), ``n_interests``, ``event_time_ms``, ``n_events``, ``window`` (its canonical bytes).

    Raises:
        BadInput: the folder is missing or cannot be written.
    """
    # pyarrow is heavy to import, and replay is used without files in other people's tests.
    from interest_cli.parquet import VECTOR_SCHEMA, write_rows

    rows = (
        {
            "user_id": user.user_id,
            "model_id": model_id,
            "vector": user.vectors.ravel(),
            "n_interests": len(user.vectors),
            "event_time_ms": user.window.event_time_ms,
            "n_events": len(user.window),
            "window": user.window.content(),
        }
        for user in users
    )
    return write_rows(path, _chunks(rows, _ROWS_PER_GROUP), VECTOR_SCHEMA)


def encode_items(
    catalogue: dict[str, Item], encoder: ItemEncoder, progress: Progress | None
) -> EncodedItems:
    """Encode items by id; an item whose text gives no direction has a row of zeros.

    Raises:
        EncoderUnavailable: the device failed.
    """
    vectors = np.zeros((len(catalogue), encoder.dim), np.float32)
    n_done = 0
    for batch in _chunks(catalogue.values(), _ITEMS_PER_BATCH):
        vectors[n_done : n_done + len(batch)] = encoder.encode_items(batch)  # (N, D)
        n_done += len(batch)
        if progress is not None:
            progress("items", n_done, len(catalogue))
    return EncodedItems(list(catalogue.values()), vectors)


def _micro_batches(
    windows: Iterable[BehaviourWindow], encoder: UserEncoder, batch_tokens: int
) -> Iterator[list[BehaviourWindow]]:
    """Cut windows into batches of at most ``batch_tokens``, and of at least one window."""
    batch: list[BehaviourWindow] = []
    n_tokens = 0
    for window in windows:
        cost = encoder.n_tokens(window)
        if batch and n_tokens + cost > batch_tokens:
            yield batch
            batch, n_tokens = [], 0
        batch.append(window)
        n_tokens += cost
    if batch:
        yield batch


def _chunks(things: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(things)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
