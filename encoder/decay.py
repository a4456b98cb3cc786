"""The user encoder ``decay``: attention pooling over item vectors, without any training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.behaviours import n_event_tokens
from encoder.weighed import Weighed, Weights
from interest.bundle import DecayParameters
from interest.encoded_items import EncodedItems
from interest.item import EncodedItem, unit
from interest.ports import ItemEncoder
from interest.window import BehaviourWindow

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
        self._weights = Weights(parameters)

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
        if not windows:
            return np.zeros((0, self.dim), np.float32)
        events = self._weights.of(windows)
        rows, vectors = self._rows(events, EncodedItems.of(items))
        known = np.flatnonzero(rows >= 0)
        if not len(known):
            return np.zeros((len(windows), self.dim), np.float32)
        weight = events.weight[known]
        scores = (
            np.log(np.abs(weight))
            + events.position[known] * math.log(self._parameters.position_decay)
            - events.age_ms[known] * (math.log(2) / self._parameters.half_life_ms)
        )
        # 2b holds what pulls in windows[b], 2b + 1 what pushes
        bags = 2 * events.window[known] + (weight < 0)
        pooled, peaks = _pool(rows[known], scores, bags, 2 * len(windows), vectors)
        return self._combine(
            pooled.reshape(len(windows), 2, -1),  # (2B, D) -> (B, 2, D)
            peaks.reshape(len(windows), 2),  # (2B,) -> (B, 2)
        )

    def _rows(
        self, events: Weighed, items: EncodedItems
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Give the row of each event, -1 where it is not known, and the vectors, (V, D)."""
        numbers, places = np.unique(events.item, return_inverse=True)
        row_of, names = items.rows.get, events.names
        rows = np.array(
            [row_of(names[number], -1) if number else -1 for number in numbers.tolist()], np.int64
        )[places]
        vectors = items.vectors.astype(np.float64)  # in the precision they are summed in
        if events.text:
            texts = sorted(set(events.text.values()))
            row = {text: len(vectors) + i for i, text in enumerate(texts)}
            encoded = self._items.encode_texts(texts).astype(np.float64)
            vectors = np.concatenate([vectors.reshape(len(vectors), self.dim), encoded])
            for place, text in events.text.items():
                rows[place] = row[text]
        return rows, vectors

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


def _pool(
    rows: NDArray[np.int64],
    scores: NDArray[np.float64],
    bags: NDArray[np.int64],
    n_bags: int,
    vectors: NDArray[np.float64],
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
            torch.from_numpy(vectors),  # (V, D)
            torch.from_numpy(offsets),
            mode="sum",
            per_sample_weights=torch.from_numpy(weights),
        )  # (n_bags, D), without the (M, D) in between
    return pooled.numpy(), peaks
