"""A shop whose users go round in circles, so that the next item can be learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interest.event import Event, EventType
from interest.fold import window_of
from interest.item import Item, unit
from interest.window import BehaviourWindow, WindowLimits

N_ITEMS = 12
ITEMS = [Item(item_id=f"i{n:02}", title=f"thing number{n} colour{n % 3}") for n in range(N_ITEMS)]
BEGIN_MS = 1_500_000_000_000
HOUR_MS = 3_600_000
WHOLE = WindowLimits(max_events=1000, span_ms=10**15)


class Texts:
    """Text vectors that depend on the letters; an empty text has none."""

    dim = 16

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        return self.encode_texts([item.text for item in items])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [
            np.random.default_rng(list(text.encode())).normal(size=16) * bool(text.strip())
            for text in texts
        ]
        held = np.array(rows, np.float32).reshape(-1, 16)
        return unit(held)


def event(user: str, n: int, item_id: str | None, hour: float, **other: object) -> Event:
    fields = {"type": EventType.CLICK} | other
    ts = BEGIN_MS + round(hour * HOUR_MS)
    return Event(event_id=f"{user}-{n:04}", user_id=user, item_id=item_id, ts=ts, **fields)  # type: ignore[arg-type]


def circles(n_users: int, length: int = 7, seed: int = 0) -> list[Event]:
    """Everybody begins somewhere and takes the next item of the circle, an hour later."""
    begins = np.random.default_rng(seed).integers(0, N_ITEMS, n_users).tolist()
    return [
        event(f"u{user:03}", n, f"i{(begin + n) % N_ITEMS:02}", n)
        for user, begin in enumerate(begins)
        for n in range(length)
    ]


def windows_of(events: Sequence[Event]) -> list[BehaviourWindow]:
    users = sorted({event.user_id for event in events})
    return [window_of(user, [e for e in events if e.user_id == user], WHOLE) for user in users]
