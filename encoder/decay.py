"""The user encoder ``decay``: attention pooling over item vectors, without any training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.behaviours import behaviours, n_event_tokens, type_weights
from interest.bundle import DecayParameters
from interest.item import EncodedItem, unit
from interest.ports import ItemEncoder
from interest.window import Behaviour, BehaviourWindow

# A pull of this share of its weights is what is left of vectors that cancel: the rounding of
# the float32 vectors themselves.
_NO_DIRECTION: Final = 1e-5
# e⁵⁰ is far beyond any push limit, and far from what a float64 holds.
_MAX_LOG_RATIO: Final = 50.0


class DecayUserEncoder:
    """Pools the vectors of a window's items; a search without an item is pooled by its text.

    Attention as in Vaswani et al. 2017, equation 1, with one query per user whose scores are
    not learned: the logarithm of an event's weight (:class:`DecayParameters`), so that the
    softmax gives the weights themselves, scaled, however old or far back the events are.
    Events that push away have a softmax of their own and are subtracted.

    Nothing here reads a clock: recency counts back from the window's newest event.
    """

    def __init__(self, items: ItemEncoder, parameters: DecayParameters) -> None:
        self._items = items
        self._parameters = parameters
        self._by_type = type_weights(parameters.weights)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._items.dim

    def n_tokens(self, window: BehaviourWindow) -> int:
        """Estimate the cost: an event is a token, a search adds those of its text."""
        return n_event_tokens(window)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        """Encode one micro-batch; see :class:`interest.ports.UserEncoder`.

        A window of which only events that push away are known gives zeros: not liking one
        thing is no direction.

        Shapes: B = len(windows), M = their behaviours that are known, V = distinct vectors.
        """
        table = _VectorTable(items, self._items)
        table.add_queries(windows)
        half_life_ms, n_bags = self._parameters.half_life_ms, 2 * len(windows)
        by_position, by_age = math.log(self._parameters.position_decay), -math.log(2) / half_life_ms
        rows: list[int] = []
        scores: list[float] = []
        bags: list[int] = []  # 2b holds what pulls in windows[b], 2b + 1 what pushes
        for b, window in enumerate(windows):
            newest_ms = window.event_time_ms
            for position, event, weight in behaviours(window, self._by_type, self._parameters):
                row = table.row(event)
                if row is None:
                    continue
                rows.append(row)
                bags.append(2 * b + (weight < 0))
                scores.append(
                    math.log(abs(weight)) + position * by_position + (newest_ms - event.ts) * by_age
                )
        if not rows:
            return np.zeros((len(windows), self.dim), np.float32)
        pooled, peaks = _pool(np.array(rows), np.array(scores), np.array(bags), n_bags, table)
        return self._combine(
            pooled.reshape(len(windows), 2, -1),  # (2B, D) -> (B, 2, D)
            peaks.reshape(len(windows), 2),  # (2B,) -> (B, 2)
        )

    def _combine(
        self, pooled: NDArray[np.float64], peaks: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        pull, push = pooled[:, 0], pooled[:, 1]  # (B, D)
        # Each side was scaled by its own strongest event; this brings them back to one scale.
        with np.errstate(invalid="ignore"):
            gap = np.where(np.isfinite(peaks).all(axis=1), peaks[:, 1] - peaks[:, 0], -np.inf)
        push = push * np.exp(np.minimum(gap, _MAX_LOG_RATIO))[:, np.newaxis]
        pull_length = np.linalg.norm(pull, axis=1)  # (B,)
        push_length = np.linalg.norm(push, axis=1)
        allowed = self._parameters.push_limit * pull_length
        scale = np.divide(
            allowed, push_length, out=np.ones_like(push_length), where=push_length > allowed
        )
        combined = pull - push * scale[:, np.newaxis]
        combined[pull_length < _NO_DIRECTION] = 0
        return unit(combined)


class _VectorTable:
    """The distinct vectors of a micro-batch as one matrix, and which event has which row."""

    def __init__(self, items: Mapping[str, EncodedItem], encoder: ItemEncoder) -> None:
        self._items = items
        self._encoder = encoder
        self._rows: dict[str, int | None] = {}
        self._queries: dict[str, int] = {}
        self._vectors: list[NDArray[np.float32]] = []

    def add_queries(self, windows: Sequence[BehaviourWindow]) -> None:
        """Encode every search without an item, all in one call."""
        texts = {
            event.text
            for window in windows
            for event in window.events
            if event.item_id is None and event.text
        }
        if texts:
            ordered = sorted(texts)
            self._queries = {text: row for row, text in enumerate(ordered)}
            self._vectors.extend(self._encoder.encode_texts(ordered))

    def row(self, event: Behaviour) -> int | None:
        """Give the row of an event's vector; None for an item that is not known."""
        if event.item_id is None:
            return self._queries.get(event.text or "")
        try:
            return self._rows[event.item_id]
        except KeyError:
            item = self._items.get(event.item_id)
            row = None if item is None else len(self._vectors)
            if item is not None:
                self._vectors.append(item.vector)
            self._rows[event.item_id] = row
            return row

    def matrix(self) -> NDArray[np.float64]:
        """Give the vectors; (V, D), in the precision they are summed in."""
        return np.stack(self._vectors, dtype=np.float64)


def _pool(
    rows: NDArray[np.int64],
    scores: NDArray[np.float64],
    bags: NDArray[np.int64],
    n_bags: int,
    table: _VectorTable,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum the vectors of each bag, weighted by softmax numerators: (n_bags, D).

    Also gives the greatest score of each bag (n_bags,), -inf for an empty one. A bag's sum is
    made in float64 in the order of its events, so it does not depend on the other bags.
    """
    peaks = np.full(n_bags, -np.inf)
    np.maximum.at(peaks, bags, scores)
    order = np.argsort(bags, kind="stable")
    weights = np.exp(scores - peaks[bags])[order]  # (M,) in 0..1, 1 for the strongest
    offsets = np.searchsorted(bags[order], np.arange(n_bags))  # (n_bags,)
    with torch.inference_mode():
        pooled = torch.nn.functional.embedding_bag(
            torch.from_numpy(rows[order]),
            torch.from_numpy(table.matrix()),  # (V, D)
            torch.from_numpy(offsets),
            mode="sum",
            per_sample_weights=torch.from_numpy(weights),
        )  # (n_bags, D), without the (M, D) in between
    return pooled.numpy(), peaks
