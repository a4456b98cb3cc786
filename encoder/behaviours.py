"""What each behaviour of a window says: how much, and towards an item or away from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from interest.bundle import DecayParameters, TypeWeights
from interest.columns import rare_of
from interest.event import EventType
from interest.window import HAS_TEXT, ID, WORD, BehaviourWindow
from interest.window import Behaviour as Kept

_DWELL_TYPES: Final = (EventType.VIEW, EventType.CLICK)
_CHARS_PER_TOKEN: Final = 4
#: All flags of an event that has no text.
_WITHOUT_TEXT: Final = bytes(flags for flags in range(256) if not flags & HAS_TEXT)


class Behaviour(NamedTuple):
    """One event of a window that counts; ``position`` 0 is the newest event of the window."""

    position: int
    event: Kept
    #: Before recency; negative pushes away, never 0.
    weight: float


def type_weights(weights: TypeWeights) -> dict[EventType, float]:
    """Give the weight of each type of event that can be in a window."""
    return {
        type_: getattr(weights, "return_" if type_ is EventType.RETURN else type_.value)
        for type_ in EventType
        if type_ is not EventType.IMPRESSION
    }


def behaviours(
    window: BehaviourWindow, by_type: dict[EventType, float], parameters: DecayParameters
) -> Iterator[Behaviour]:
    """Give the behaviours that count, newest first.

    A return, a removal or a bad rating takes back whatever was done with that item before it:
    the purchase, and the clicks that led there. So it pushes once, and its purchase is not left
    to pull against it. What is done with the item afterwards counts again.

    Positions count every event, so that an item that becomes known moves no other.
    """
    taken_back: set[str] = set()
    for position, event in enumerate(reversed(window.events)):
        item_id = event.item_id
        if item_id in taken_back:
            continue
        weight = by_type.get(event.type, 0.0)
        if event.rating is not None and event.rating <= parameters.bad_rating:
            weight = -abs(weight)
        elif (
            event.dwell_ms is not None
            and event.dwell_ms < parameters.bounce_ms
            and event.type in _DWELL_TYPES
        ):
            weight *= parameters.bounce_factor
        if weight < 0 and item_id is not None:
            taken_back.add(item_id)
        if weight:
            yield Behaviour(position, event, weight)


def n_event_tokens(window: BehaviourWindow) -> int:
    """Estimate what reading a window costs: an event is a token, a search adds its text's."""
    n = len(window)
    flags = window.data[ID * n : (ID + WORD) * n : WORD]  # the low byte of each word
    if not flags.translate(None, _WITHOUT_TEXT):
        return n
    numbers = window.item_numbers()
    return n + sum(
        len(rare.text) // _CHARS_PER_TOKEN
        for place, rare in rare_of(window)
        if rare.text and not numbers[place]
    )
