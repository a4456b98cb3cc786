"""Live quality: where the vector held just before an event ranks the item of that event.

The worker scores its events by these functions (:mod:`streams.live_quality`), the offline replay by
the same, so that over a log both count the same (ADR 24). Nothing here depends on how events were
grouped: each is asked of the window as it stood before that event alone.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from interest import metrics as m
from interest.encoded_items import EncodedItems
from interest.event import Event, EventType, id_hash
from interest.fold import fold
from interest.ports import Metrics, UserEncoder
from interest.window import BehaviourWindow, WindowLimits

#: Items that a target is ranked among.
N_SAMPLED: Final = 1_000
#: Ranks below it are hits, and gain.
CUT: Final = 10
#: Gains are whole multiples of 1 / this, so that a sum does not depend on its order.
_GAIN_STEPS: Final = 2**20
#: Digits of a score that count; further ones are rounding of the encoder's batches.
_DIGITS: Final = 6
#: Sampled items and users must not be chosen by one hash.
_USER_SEED: Final = 1
_ITEM_SEED: Final = 2
_HASHES: Final = 2**64
#: What a user does to an item out of interest in it.
_POSITIVE: Final = frozenset(
    {
        EventType.VIEW,
        EventType.CLICK,
        EventType.FAVOURITE,
        EventType.CART,
        EventType.PURCHASE,
        EventType.REVIEW,
    }
)

#: Why a target was not scored: no direction was known of its user; its item has no vector; more
#: came than may be scored; encoder or item store failed.
Skipped = Literal["cold", "unknown_item", "overload", "failed"]


class Target(NamedTuple):
    """An item that a user turned to, and the window just before that."""

    window: BehaviourWindow
    item_id: str

    @property
    def is_repeated(self) -> bool:
        """True where the item lies in the window: recommendations leave it out."""
        number = self.window.items.find(self.item_id)
        return number is not None and number in self.window.item_numbers()


def is_chosen(subject_id: str, share: float) -> bool:
    """Tell whether a user belongs to a share (0..1) of all, the same for every process."""
    return xxh3_64_intdigest(subject_id.encode(), seed=_USER_SEED) < share * _HASHES


def targets(
    window: BehaviourWindow, events: Iterable[Event], limits: WindowLimits, bad_rating: float
) -> Iterator[Target | None]:
    """Give the target of each event of the window's subject, in the order they came.

    None for an event that is none: a target has an item, is done out of interest in it, and is new
    to the window and enters it. So no search, no impression, nothing that is taken back or rated
    ``bad_rating`` or less, no double, and nothing that comes when newer events have filled the
    window.
    """
    for event in events:
        folded = fold(window, [event], limits)
        is_target = (
            folded is not window
            and event.type in _POSITIVE
            and (event.rating is None or event.rating > bad_rating)
            and id_hash(event.event_id) not in window.id_hashes()
        )
        yield Target(window, event.item_id) if is_target and event.item_id else None
        window = folded


class SampledItems(NamedTuple):
    """The items that targets are ranked among; S of them."""

    ids: Sequence[str]
    vectors: NDArray[np.float64]  # (S, D)

    @classmethod
    def of(cls, items: EncodedItems) -> SampledItems:
        """Take encoded items."""
        return cls(list(items), items.vectors.astype(np.float64))


def rank(
    target: Target, encoder: UserEncoder, items: EncodedItems, sample: SampledItems
) -> float | Skipped:
    """Give how many sampled items lie above the target, ties counting half, or why none is known.

    The window is encoded alone and scores are rounded to six digits, so that the answer does not
    depend on who else is encoded; 0 is first.

    Args:
        items: those of the window that are known, and the target's.

    Raises:
        EncoderUnavailable: the device failed; other exceptions are the encoder's, too.
    """
    if not len(target.window):
        return "cold"
    row = items.rows.get(target.item_id)
    if row is None or not sample.ids:
        return "unknown_item"
    user = encoder.encode([target.window], items)[0].astype(np.float64)  # (D,)
    if not user.any():
        return "cold"
    scores = np.round(sample.vectors @ user, _DIGITS)  # (S,)
    score = np.round(items.vectors[row].astype(np.float64) @ user, _DIGITS)
    others = np.fromiter((item != target.item_id for item in sample.ids), np.bool_, len(scores))
    above, equal = (scores > score) & others, (scores == score) & others
    return float(above.sum() + equal.sum() / 2)


def gain(rank: float) -> float:
    """Give NDCG@10 of a target of this rank (0 is first), in steps of 2⁻²⁰."""
    return round(_GAIN_STEPS / math.log2(rank + 2)) / _GAIN_STEPS if rank < CUT else 0.0


def count(metrics: Metrics, target: Target, found: float | Skipped) -> None:
    """Count what :func:`rank` gave."""
    if isinstance(found, str):
        metrics.count(m.QUALITY_SKIPPED, 1, found)
        return
    label = "repeated" if target.is_repeated else "new"
    metrics.count(m.QUALITY_EVENTS, 1, label)
    metrics.count(m.QUALITY_HITS, int(found < CUT), label)
    metrics.count(m.QUALITY_NDCG, gain(found), label)


class ItemSample:
    """Which items of a catalogue are sampled: those of the least hashes of their ids.

    So it is the same in every process and whatever the order in which items come, and a catalogue
    that grows by a tenth changes about a tenth of it.

    Args:
        size: how many; a smaller catalogue is sampled whole.
    """

    def __init__(self, size: int = N_SAMPLED) -> None:
        self._size = size
        #: By hash: every known item below the bound, at most twice the sample, so that removals
        #: rarely ask for all items.
        self._least: list[tuple[int, str]] = []
        self._bound = _HASHES
        #: Counts the changes of what is sampled, or of its vectors.
        self.version = 0

    @property
    def ids(self) -> list[str]:
        """The items of the sample."""
        return [item_id for _, item_id in self._least[: self._size]]

    def put(self, item_ids: Iterable[str]) -> None:
        """Add items, or say that they changed."""
        for item_id in item_ids:
            entry = (_hash(item_id), item_id)
            if entry[0] >= self._bound:
                continue
            place = bisect.bisect_left(self._least, entry)
            if self._least[place : place + 1] != [entry]:
                self._least.insert(place, entry)
            self.version += place < self._size
        if len(self._least) > 2 * self._size:
            self._cut()

    def remove(self, item_ids: Iterable[str], known: Iterable[str]) -> None:
        """Take items out.

        Args:
            known: all items that are left; looked at where too few of the sample are.
        """
        for item_id in item_ids:
            entry = (_hash(item_id), item_id)
            place = bisect.bisect_left(self._least, entry)
            if self._least[place : place + 1] == [entry]:
                del self._least[place]
                self.version += place < self._size
        if len(self._least) < self._size and self._bound < _HASHES:
            self._bound = _HASHES
            self._least = heapq.nsmallest(2 * self._size + 1, ((_hash(i), i) for i in known))
            self.version += 1
            if len(self._least) > 2 * self._size:
                self._cut()

    def _cut(self) -> None:
        self._bound = self._least[2 * self._size][0]
        del self._least[2 * self._size :]


def _hash(item_id: str) -> int:
    return xxh3_64_intdigest(item_id.encode(), seed=_ITEM_SEED)
