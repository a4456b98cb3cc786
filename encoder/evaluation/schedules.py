"""When events reach a vector: what a query's vector knows is what lies before some second.

*Delay*: events at least so much older than the query. *Refresh*: events before the hour, day, week
(from Monday), month or stretch of days that the query lies in (UTC). *Never*: events before the
split.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interest.errors import BadInput

_DAY_S: Final = 86_400
#: 1970-01-01 was a Thursday.
_MONDAY_S: Final = 3 * _DAY_S
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": _DAY_S}
_PERIODS: Final = {"hour": (3600, 0), "day": (_DAY_S, 0), "week": (7 * _DAY_S, _MONDAY_S)}

Ints = NDArray[np.int64]


class Schedule(NamedTuple):
    """When events reach the vector."""

    name: str
    #: Times of queries → the first second whose events the vector does not have yet.
    until: Callable[[Ints], Ints]


def delay(word: str) -> Schedule:
    """Read a delay such as ``0s``, ``30s`` or ``5m``: what is at least so much older is known.

    Without delay everything before the query is known, and nothing of its own second.

    Raises:
        BadInput: no such delay.
    """
    seconds = _seconds(word)
    # At least so much older: an event of exactly that age is in.
    return Schedule(word, lambda times: times - max(0, seconds - 1) if seconds else times)


def refresh(word: str, since_s: int | None) -> Schedule:
    """Read a refresh: ``event``, ``hour``, ``day``, ``week``, ``month``, ``30d`` or ``never``.

    Raises:
        BadInput: no such refresh, or ``never`` without a split.
    """
    if word == "event":
        return Schedule(word, lambda times: times)
    if word == "never":
        if since_s is None:
            raise BadInput("vectors that are never refreshed are those of the split: name --since")
        return Schedule(word, lambda times: np.full_like(times, since_s))
    if word == "month":
        return Schedule(word, _month)
    size, phase = _PERIODS.get(word) or (_seconds(word), 0)
    if not size:
        raise BadInput(f"a refresh every {word} is none; write event")
    return Schedule(word, lambda times: times - (times + phase) % size)


def _month(times: Ints) -> Ints:
    months = times.astype("datetime64[s]").astype("datetime64[M]")
    return months.astype("datetime64[s]").astype(np.int64)


def _seconds(word: str) -> int:
    found = re.fullmatch(r"(\d{1,6})([smhd])", word)
    if found is None:
        raise BadInput(f"{word!r} is no time; write a number and s, m, h or d, such as 30s")
    return int(found[1]) * _UNITS_S[found[2]]
