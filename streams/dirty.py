"""The dirty users: who waits to be encoded, each once, oldest first.

A hundred thousand may wait, so nothing here looks at all of them: to mark, to confirm and to take
one costs the same however many others there are, up to the logarithm of a heap.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from typing import NamedTuple

import msgspec

from streams.encode_cap import EncodeCap


class Mark(msgspec.Struct, frozen=True, gc=False):
    """One user's reason to be encoded.

    ``seq`` orders marks; ``since_ms`` is the time stamp of the oldest Kafka record that the
    user's vector does not show yet (Unix ms), None where no record caused it.
    """

    seq: int
    subject_id: str
    partition: int
    since_ms: int | None


class _Place(NamedTuple):
    """Where a waiting mark stands; it is out of date when the mark has left or stands elsewhere."""

    seq: int
    partition: int
    subject_id: str


class DirtyUsers:
    """A user is here once, however many events arrive: load costs freshness, not memory.

    A mark is *waiting*, then *in flight*, then confirmed (its vector is readable) or put back.
    A user who is marked again while in flight waits a second time. Marks of a partition that is
    being caught up are not taken until it is released. A user who was encoded too often of late
    *rests*, as ``cap`` says.
    """

    def __init__(self, cap: EncodeCap | None = None) -> None:
        self._cap = EncodeCap() if cap is None else cap
        self._next_seq = 1
        self._waiting: defaultdict[int, dict[str, Mark]] = defaultdict(dict)
        self._in_flight: dict[str, Mark] = {}
        self._held_back: set[int] = set()
        # Heaps. A place that is out of date stays until it comes to the top: to find it would
        # mean to look at all of them.
        self._ready: list[_Place] = []
        self._resting: list[tuple[float, _Place]] = []
        #: Numbers of all marks, lowest first. A dict would look over everything that was deleted.
        self._open: OrderedDict[int, None] = OrderedDict()
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        #: Events that came while their user rested: encodes that the cap saved.
        self.n_suppressed = 0
        #: Marks settled so far; a sign of life.
        self.n_settled = 0

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, subject_id: object) -> bool:
        return subject_id in self._in_flight or any(
            subject_id in marks for marks in self._waiting.values()
        )

    @property
    def last_seq(self) -> int:
        """The newest mark's number; 0 before the first."""
        return self._next_seq - 1

    @property
    def n_ready(self) -> int:
        """How many could be taken now, about: some may have left, or begin to rest."""
        return len(self._ready)

    def mark(self, subject_id: str, partition: int, since_ms: int | None) -> None:
        """Say that a user must be encoded; who already waits keeps place and time.

        The older time stamp stays: freshness is counted for the event that waited longest.
        """
        marks = self._waiting[partition]
        held = marks.get(subject_id)
        if held is None:
            mark = marks[subject_id] = Mark(self._next_seq, subject_id, partition, since_ms)
            self._open[mark.seq] = None
            self._next_seq += 1
            self._enqueue(mark)
            return
        if self._cap.rests_until(subject_id):
            self.n_suppressed += 1
        if held.since_ms is None and since_ms is not None:
            marks[subject_id] = msgspec.structs.replace(held, since_ms=since_ms)

    def _enqueue(self, mark: Mark) -> None:
        """Let a waiting mark be taken, unless something is yet to end that lets it."""
        if mark.partition not in self._held_back and mark.subject_id not in self._in_flight:
            heappush(self._ready, _Place(mark.seq, mark.partition, mark.subject_id))
            self._changed.set()

    def hold_back(self, partition: int) -> None:
        """Take no mark of a partition until :meth:`release`."""
        self._held_back.add(partition)

    def release(self, partition: int) -> None:
        """Let the marks of a partition be taken."""
        self._held_back.discard(partition)
        for mark in self._waiting[partition].values():
            self._enqueue(mark)

    async def wait(self) -> None:
        """Return when somebody waits who can be taken."""
        while self.first() is None:
            self._changed.clear()
            pause_s = self._resting[0][0] - self._cap.monotonic() if self._resting else None
            # Not wait_for: before Python 3.12 it can lose a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    def first(self) -> Mark | None:
        """Give the oldest mark that can be taken, None where there is none."""
        now = self._cap.monotonic() if self._resting else 0.0
        while self._resting and self._resting[0][0] <= now:
            heappush(self._ready, heappop(self._resting)[1])
        while self._ready:
            place = self._ready[0]
            mark = self._waiting[place.partition].get(place.subject_id)
            if (
                mark is not None
                and mark.seq == place.seq
                and place.partition not in self._held_back
                and place.subject_id not in self._in_flight
            ):
                until = self._cap.rests_until(place.subject_id)
                if not until:
                    return mark
                heappush(self._resting, (until, place))
            heappop(self._ready)
        return None

    def take(self, cost: Callable[[Mark], int], budget: int) -> list[Mark]:
        """Move the oldest marks in flight, until their cost passes ``budget``; at least one.

        A user who rests, or who is in flight already, is passed over: two encodes of one user
        never run at the same time. So the list may be empty.
        """
        taken: list[Mark] = []
        spent = 0
        while (mark := self.first()) is not None:
            spent += cost(mark)
            if taken and spent > budget:
                break
            heappop(self._ready)
            del self._waiting[mark.partition][mark.subject_id]
            self._in_flight[mark.subject_id] = mark
            self._cap.spend(mark.subject_id)
            taken.append(mark)
        return taken

    def is_in_flight(self, mark: Mark) -> bool:
        """Tell whether a mark was neither settled nor dropped since it was taken."""
        flying = self._in_flight.get(mark.subject_id)
        return flying is not None and flying.seq == mark.seq

    def confirm(self, marks: Sequence[Mark]) -> None:
        """Say that vectors at least as new as these marks are readable, or the users gone."""
        for mark in marks:
            if not self.is_in_flight(mark):
                continue
            del self._in_flight[mark.subject_id]
            del self._open[mark.seq]
            again = self._waiting[mark.partition].get(mark.subject_id)
            if again is not None:
                self._enqueue(again)
        self.n_settled += len(marks)
        self._settled.set()

    def put_back(self, marks: Sequence[Mark]) -> None:
        """Let marks wait again under their old numbers: their encode failed."""
        for mark in marks:
            if not self.is_in_flight(mark):
                continue
            del self._in_flight[mark.subject_id]
            self._cap.give_back(mark.subject_id)
            waiting = self._waiting[mark.partition]
            newer = waiting.get(mark.subject_id)
            if newer is not None:  # the older mark stands for both
                del self._open[newer.seq]
                if mark.since_ms is None:
                    mark = msgspec.structs.replace(mark, since_ms=newer.since_ms)
            waiting[mark.subject_id] = mark
            self._enqueue(mark)

    def drop_partition(self, partition: int) -> None:
        """Forget the marks of a partition that another worker owns now."""
        self._held_back.discard(partition)
        flying = [mark for mark in self._in_flight.values() if mark.partition == partition]
        for mark in flying:
            del self._in_flight[mark.subject_id]
        for mark in [*self._waiting.pop(partition, {}).values(), *flying]:
            del self._open[mark.seq]
        self._settled.set()

    async def settled(self, seq: int) -> None:
        """Return when every mark up to ``seq`` is confirmed or dropped."""
        while self._lowest() <= seq:
            self._settled.clear()
            await self._settled.wait()

    def _lowest(self) -> int:
        return next(iter(self._open), self._next_seq)
