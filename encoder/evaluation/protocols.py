"""Which events a protocol trains on, and which it asks for.

*Leave one out*: the last event of each user is the test target, the one before it the validation
target, the rest is trained on; at test time the validation event is part of the history. Users of
fewer than three events are trained on and never asked.

*Global time*: trained on before the 80% quantile of event times, validated on the next tenth,
tested on the last; each event of a period is a target, with all of its user's earlier events as its
history. In leave-one-out a model may have been trained on events that lie after a target; here on
none (Meng et al. 2020, "Exploring Data Splitting Strategies for the Evaluation of Recommendation
Models").

A target without any event before it has no history to be ranked from and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from interest.errors import BadInput

Protocol = Literal["leave-one-out", "global-time"]
Part = Literal["validation", "test"]

_TRAIN_QUANTILE: Final = 0.8
_VALIDATION_QUANTILE: Final = 0.9
_DAY_S: Final = 86_400


class Cases(msgspec.Struct, frozen=True, eq=False):
    """Targets to rank, ordered by user and time.

    Shapes: B targets. The history of target b is the events ``starts[users[b]]:places[b]``.
    """

    users: NDArray[np.int64]  # (B,) rows of users
    places: NDArray[np.int64]  # (B,) places of the targets among all events

    def __len__(self) -> int:
        return len(self.users)


class Split(NamedTuple):
    """A dataset cut by a protocol."""

    protocol: Protocol
    train: NDArray[np.bool_]  # (M,) the events that may be trained on
    validation: Cases
    test: Cases
    #: (N,) items whose events are kept from training; None for none.
    held_out: NDArray[np.bool_] | None = None

    def without(self, dataset: Dataset, items: NDArray[np.bool_]) -> Split:
        """Give the split that trains on no event of some items, (N,)."""
        return self._replace(train=self.train & ~items[dataset.items], held_out=items)

    def cases(self, part: Part) -> Cases:
        """Give the targets of a part."""
        return self.test if part == "test" else self.validation


def leave_one_out(dataset: Dataset) -> Split:
    """Cut by the last two events of each user."""
    ends = dataset.starts[1:]
    asked = np.flatnonzero(np.diff(dataset.starts) >= 3)
    train = np.ones(len(dataset.items), np.bool_)
    train[ends[asked] - 1] = False
    train[ends[asked] - 2] = False
    return Split(
        "leave-one-out", train, Cases(asked, ends[asked] - 2), Cases(asked, ends[asked] - 1)
    )


def global_time(dataset: Dataset) -> Split:
    """Cut by two moments that are the same for all users.

    Raises:
        BadInput: the log has no times.
    """
    times = dataset.times_s
    if times is None:
        raise BadInput("global-time needs the column unix_times; use --protocol leave-one-out")
    first, second = np.quantile(times, [_TRAIN_QUANTILE, _VALIDATION_QUANTILE])
    users = dataset.users()
    has_history = np.arange(len(times)) > dataset.starts[users]

    def cases(period: NDArray[np.bool_]) -> Cases:
        places = np.flatnonzero(period & has_history)
        return Cases(users[places], places)

    return Split(
        "global-time",
        times < first,
        cases((times >= first) & (times < second)),
        cases(times >= second),
    )


#: The protocols by name.
PROTOCOLS: Final[dict[Protocol, Callable[[Dataset], Split]]] = {
    "leave-one-out": leave_one_out,
    "global-time": global_time,
}


def untied(dataset: Dataset, cases: Cases) -> NDArray[np.bool_] | None:
    """Tell which targets lie on another day (UTC) than the event before them, (B,).

    Within a day a log may stand in an order that says something else than time, such as that of
    the item ids; only an untied target cannot be guessed from it. None where there are no times.
    """
    if dataset.times_s is None:
        return None
    days = dataset.times_s // _DAY_S
    changed: NDArray[np.bool_] = days[cases.places] != days[cases.places - 1]
    return changed
