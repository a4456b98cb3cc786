"""What the behaviours of a micro-batch say, as arrays: :func:`encoder.behaviours.behaviours` for
many windows at once, without an object for each event. numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.behaviours import type_weights
from interest.bundle import DecayParameters
from interest.columns import SAYS, Columns, columns, rare_of
from interest.event import TYPE_CODES, TYPES, EventType
from interest.window import BehaviourWindow

_DWELL_CODES: Final = [TYPE_CODES[EventType.VIEW], TYPE_CODES[EventType.CLICK]]


class Weighed(NamedTuple):
    """The events that count, window by window, each newest first.

    Shapes: M events.
    """

    window: NDArray[np.int64]  # (M,)
    position: NDArray[np.int64]  # (M,) 0 is the newest event of its window, counted or not
    age_ms: NDArray[np.int64]  # (M,) before that newest event
    weight: NDArray[np.float64]  # (M,) before recency; negative pushes away, never 0
    item: NDArray[np.uint32]  # (M,) number in ``names``; 0 for none
    text: dict[int, str]  # index of the event → text of a search without an item
    names: Sequence[str]


class Weights:
    """The weight of each type of event, by its code."""

    def __init__(self, parameters: DecayParameters) -> None:
        self._parameters = parameters
        by_type = type_weights(parameters.weights)
        self._by_code = np.array([by_type.get(type_, 0.0) for type_ in TYPES])

    def of(self, windows: Sequence[BehaviourWindow]) -> Weighed:
        """Weigh the events of some windows, at least one."""
        events = columns(windows)
        n = len(events.ts)
        window = np.repeat(np.arange(len(windows)), np.diff(events.starts))
        position = events.starts[1:][window] - 1 - np.arange(n)
        weight = self._by_code[events.types]
        texts = self._adjust(windows, events, weight)
        weight[_taken_back(window, position, events.items, weight)] = 0
        # (window, newest first): whole windows keep their order, their events turn round.
        turned = events.starts[:-1][window] + position
        kept = turned[weight[turned] != 0]
        newest_ms = events.ts[events.starts[1:][window[kept]] - 1]
        places = {place: i for i, place in enumerate(kept.tolist())} if texts else {}
        return Weighed(
            window[kept],
            position[kept],
            newest_ms - events.ts[kept],
            weight[kept],
            events.items[kept],
            {places[place]: text for place, text in texts.items() if place in places},
            events.names,
        )

    def _adjust(
        self,
        windows: Sequence[BehaviourWindow],
        events: Columns,
        weight: NDArray[np.float64],
    ) -> dict[int, str]:
        """Change weights by rating and dwell time; give the texts of searches by event."""
        texts: dict[int, str] = {}
        says = np.flatnonzero(events.flags & SAYS)
        owners = np.unique(np.searchsorted(events.starts, says, side="right") - 1)
        parameters = self._parameters
        for number in owners.tolist():
            first = int(events.starts[number])
            for position, rare in rare_of(windows[number]):
                place = first + position
                if rare.rating is not None and rare.rating <= parameters.bad_rating:
                    weight[place] = -abs(weight[place])
                elif (
                    rare.dwell_ms is not None
                    and rare.dwell_ms < parameters.bounce_ms
                    and events.types[place] in _DWELL_CODES
                ):
                    weight[place] *= parameters.bounce_factor
                if rare.text and not events.items[place]:
                    texts[place] = rare.text
        return texts


def _taken_back(
    window: NDArray[np.int64],
    position: NDArray[np.int64],
    item: NDArray[np.uint32],
    weight: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Tell which events lie before one that pushes their item away."""
    pushes = (weight < 0) & (item > 0)
    if not pushes.any():
        return np.zeros(len(item), np.bool_)
    key = (window << 32) | item
    pushed, place = np.unique(key[pushes], return_inverse=True)
    newest = np.full(len(pushed), np.iinfo(np.int64).max)
    np.minimum.at(newest, place, position[pushes])
    found = np.minimum(np.searchsorted(pushed, key), len(pushed) - 1)
    taken: NDArray[np.bool_] = (pushed[found] == key) & (position > newest[found])
    return taken
