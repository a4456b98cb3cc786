"""Live quality of a worker: each event is ranked by the vector of the window before it (ADR 24).

Beside the way from events to vectors, never in it: what was folded is noted, and scored while there
is time for it. What is noted is bounded, and so is the time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple

import msgspec

from interest import metrics as m
from interest.columns import item_ids_of
from interest.encoded_items import EncodedItems
from interest.errors import InterestError
from interest.event import Event
from interest.ports import ItemLookup, Metrics, UserEncoder
from interest.quality import (
    ItemSample,
    SampledItems,
    Skipped,
    Target,
    count,
    is_chosen,
    rank,
    targets,
)
from interest.window import BehaviourWindow, WindowLimits

log = logging.getLogger(__name__)

#: Events that wait at most: some 40 MB in the worst case.
MAX_WAITING: Final = 32_768
#: Events that are looked at in one go, while a micro-batch may wait for the device.
_PART: Final = 8


class _Folded(msgspec.Struct, gc=False):
    """A window, what was folded into it since, and what it was after that."""

    before: BehaviourWindow
    events: list[Event]
    after: BehaviourWindow


class _Scored(NamedTuple):
    ranks: list[float | Skipped]
    seconds: float


class LiveQuality:
    """Notes what is folded, and counts how well the vectors before it ranked it.

    Args:
        share: of the users, 0..1.
        load: seconds of a core per second that scoring takes at most, 0..1.
        limits: of the windows.
        bad_rating: a rating up to which an event says the contrary.
        device: the encoder's thread.
        known_items: the catalogue; :meth:`items_changed` tells what happens to it.
    """

    def __init__(
        self,
        *,
        share: float,
        load: float,
        limits: WindowLimits,
        bad_rating: float,
        encoder: UserEncoder,
        device: Executor,
        lookup: ItemLookup,
        known_items: Collection[str],
        metrics: Metrics,
    ) -> None:
        self._share = share
        self._load = load
        self._limits = limits
        self._bad_rating = bad_rating
        self._encoder = encoder
        self._device = device
        self._lookup = lookup
        self._known_items = known_items
        self._metrics = metrics
        self._sample = ItemSample()
        self._sampled = SampledItems.of(EncodedItems.stacked(()))
        self._sampled_version = 0
        self._waiting: deque[_Folded] = deque()
        #: The last entry of each subject that waits.
        self._last: dict[str, _Folded] = {}
        self._n_waiting = 0
        #: Events that found no room, and are not counted yet: this is said often, and fast.
        self._n_passed_over = 0
        self._arrived = asyncio.Event()

    @property
    def pending(self) -> bool:
        """True while something noted is not counted yet."""
        return self._arrived.is_set()

    def note(
        self, before: BehaviourWindow, events: Sequence[Event], after: BehaviourWindow
    ) -> None:
        """Take note of events that were folded into a window, in the order they came."""
        subject_id = before.subject_id
        if not is_chosen(subject_id, self._share):
            return
        if self._n_waiting + len(events) > MAX_WAITING:
            self._n_passed_over += len(events)
            return
        self._n_waiting += len(events)
        last = self._last.get(subject_id)
        # Another object: something else happened to the window in between.
        if last is not None and last.after is before:
            last.events += events
            last.after = after
        else:
            folded = self._last[subject_id] = _Folded(before, list(events), after)
            self._waiting.append(folded)
        self._arrived.set()

    def items_changed(self, put: Sequence[str], removed: Sequence[str]) -> None:
        """Follow the catalogue: items that were added or changed, and items that are gone."""
        self._sample.put(put)
        self._sample.remove(removed, self._known_items)

    async def run(self) -> None:
        """Score what is noted until cancelled. What fails is passed over, and counted."""
        while True:
            await self._arrived.wait()
            found = self._targets()
            while True:
                began = time.perf_counter()
                looked_at = list(itertools.islice(found, _PART))
                self._count_passed_over()
                if not looked_at:
                    break
                part = [target for target in looked_at if target is not None]
                spent_s = time.perf_counter() - began
                if part:
                    spent_s += await self._score(part)
                await asyncio.sleep(spent_s * (1 / self._load - 1))
            if not self._waiting:
                self._arrived.clear()

    def _count_passed_over(self) -> None:
        if self._n_passed_over:
            self._metrics.count(m.QUALITY_SKIPPED, self._n_passed_over, "overload")
            self._n_passed_over = 0

    def _targets(self) -> Iterator[Target | None]:
        while self._waiting:
            folded = self._waiting.popleft()
            subject_id = folded.before.subject_id
            if self._last[subject_id] is folded:
                del self._last[subject_id]
            self._n_waiting -= len(folded.events)
            yield from targets(folded.before, folded.events, self._limits, self._bad_rating)

    async def _score(self, part: Sequence[Target]) -> float:
        """Rank and count targets; give the seconds that took."""
        item_ids = {*item_ids_of([target.window for target in part])}
        item_ids.update(target.item_id for target in part)
        loop = asyncio.get_running_loop()
        try:
            items = EncodedItems.of(await self._lookup.fetch(list(item_ids)))
            sample = await self._sampled_items()
            scored = await loop.run_in_executor(self._device, self._rank, part, items, sample)
        except InterestError as error:
            log.info("the quality of %d events is not known: %s", len(part), error)
            self._metrics.count(m.QUALITY_SKIPPED, len(part), "failed")
            return 0.0
        for target, found in zip(part, scored.ranks, strict=True):
            count(self._metrics, target, found)
        return scored.seconds

    async def _sampled_items(self) -> SampledItems:
        version = self._sample.version
        if version != self._sampled_version:
            wanted = self._sample.ids
            found = EncodedItems.of(await self._lookup.fetch(wanted))
            self._sampled = SampledItems.of(found)
            if len(found) == len(wanted):  # else the store is behind the feed: look again
                self._sampled_version = version
        return self._sampled

    def _rank(self, part: Sequence[Target], items: EncodedItems, sample: SampledItems) -> _Scored:
        began = time.perf_counter()
        ranks: list[float | Skipped] = []
        for target in part:
            try:
                ranks.append(rank(target, self._encoder, items, sample))
            except Exception as error:  # a poison window is the micro-batches' to find
                log.info("the quality of an event is not known: %r", error)
                ranks.append("failed")
        return _Scored(ranks, time.perf_counter() - began)
