"""The dirty users: who waits to be encoded, each once, oldest first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

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


class DirtyUsers:
    """A user is here once, however many events arrive: load costs freshness, not memory.

    A mark is *waiting*, then *in flight*, then confirmed (its vector is readable) or put back.
    A user who is marked again while in flight waits a second time. Marks of a partition that is
    being caught up wait apart until it is released. A user who was encoded too often of late
    *rests*, as ``cap`` says.
    """

    def __init__(self, cap: EncodeCap | None = None) -> None:
        self._cap = EncodeCap() if cap is None else cap
        self._next_seq = 1
        self._waiting: dict[str, Mark] = {}
        self._in_flight: dict[int, Mark] = {}
        self._held_back: dict[int, dict[str, Mark]] = {}
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        #: Events that came while their user rested: encodes that the cap saved.
        self.n_suppressed = 0
        #: Marks settled so far; a sign of life.
        self.n_settled = 0

    def __len__(self) -> int:
        return (
            len(self._waiting)
            + len(self._in_flight)
            + sum(len(marks) for marks in self._held_back.values())
        )

    def __contains__(self, subject_id: object) -> bool:
        return (
            subject_id in self._waiting
            or any(subject_id in marks for marks in self._held_back.values())
            or any(mark.subject_id == subject_id for mark in self._in_flight.values())
        )

    @property
    def last_seq(self) -> int:
        """The newest mark's number; 0 before the first."""
        return self._next_seq - 1

    def mark(self, subject_id: str, partition: int, since_ms: int | None) -> None:
        """Say that a user must be encoded; who already waits keeps place and time.

        The older time stamp stays: freshness is counted for the event that waited longest.
        """
        place = self._held_back.get(partition, self._waiting)
        held = place.get(subject_id)
        if held is None:
            place[subject_id] = Mark(self._next_seq, subject_id, partition, since_ms)
            self._next_seq += 1
            self._changed.set()
            return
        if self._cap.pause_s(subject_id):
            self.n_suppressed += 1
        if held.since_ms is None and since_ms is not None:
            place[subject_id] = msgspec.structs.replace(held, since_ms=since_ms)

    def hold_back(self, partition: int) -> None:
        """Keep a partition's marks apart until :meth:`release`."""
        apart = self._held_back.setdefault(partition, {})
        for mark in [mark for mark in self._waiting.values() if mark.partition == partition]:
            apart[mark.subject_id] = self._waiting.pop(mark.subject_id)

    def release(self, partition: int) -> None:
        """Let the marks of a partition be taken."""
        self._waiting = _in_order(self._waiting, self._held_back.pop(partition, {}))
        self._changed.set()

    async def wait(self) -> None:
        """Return when somebody waits who can be taken."""
        while True:
            pause_s = self._pause_s()
            if pause_s == 0:
                return
            self._changed.clear()
            # Not wait_for: before Python 3.12 it can lose a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    def _pause_s(self) -> float | None:
        """Tell how long nobody can be taken; None where only an event can change that."""
        busy = self._busy()
        shortest: float | None = None
        for subject_id in self._waiting:
            if subject_id in busy:
                continue
            pause_s = self._cap.pause_s(subject_id)
            if not pause_s:
                return 0
            shortest = pause_s if shortest is None else min(shortest, pause_s)
        return shortest

    def _busy(self) -> set[str]:
        return {mark.subject_id for mark in self._in_flight.values()}

    def take(self, cost: Callable[[Mark], int], budget: int) -> list[Mark]:
        """Move the oldest marks in flight, until their cost passes ``budget``; at least one.

        A user who rests, or who is in flight already, is passed over: two encodes of one user
        never run at the same time. So the list may be empty.
        """
        taken: list[Mark] = []
        busy = self._busy()
        spent = 0
        for mark in self._waiting.values():
            if mark.subject_id in busy or self._cap.pause_s(mark.subject_id):
                continue
            spent += cost(mark)
            if taken and spent > budget:
                break
            taken.append(mark)
        for mark in taken:
            del self._waiting[mark.subject_id]
            self._in_flight[mark.seq] = mark
            self._cap.spend(mark.subject_id)
        return taken

    def confirm(self, marks: Sequence[Mark]) -> None:
        """Say that vectors at least as new as these marks are readable, or the users gone."""
        for mark in marks:
            self._in_flight.pop(mark.seq, None)
        self.n_settled += len(marks)
        self._settled.set()
        self._changed.set()

    def put_back(self, marks: Sequence[Mark]) -> None:
        """Let marks wait again under their old numbers: their encode failed."""
        again: dict[str, Mark] = {}
        apart: dict[int, dict[str, Mark]] = {}
        for mark in marks:
            if self._in_flight.pop(mark.seq, None) is None:
                continue
            self._cap.give_back(mark.subject_id)
            held_back = mark.partition in self._held_back
            place = apart.setdefault(mark.partition, {}) if held_back else again
            place[mark.subject_id] = mark
        for partition, older in apart.items():
            # Once for all of them: each costs a pass over everybody who waits.
            self._held_back[partition] = _in_order(self._held_back[partition], older)
        # Where the user waits again already, the older mark stands for both.
        self._waiting = _in_order(self._waiting, again) if again else self._waiting
        self._changed.set()

    def drop_partition(self, partition: int) -> None:
        """Forget the marks of a partition that another worker owns now."""
        self._held_back.pop(partition, None)
        self._waiting = {k: v for k, v in self._waiting.items() if v.partition != partition}
        self._in_flight = {k: v for k, v in self._in_flight.items() if v.partition != partition}
        self._settled.set()

    async def settled(self, seq: int) -> None:
        """Return when every mark up to ``seq`` is confirmed or dropped."""
        while self._lowest() <= seq:
            self._settled.clear()
            await self._settled.wait()

    def _lowest(self) -> int:
        # Waiting marks stand in the order of their numbers, so the first is the lowest.
        places = [self._waiting, *self._held_back.values()]
        firsts = [next(iter(marks.values())).seq for marks in places if marks]
        return min([*firsts, *self._in_flight, self._next_seq])


def _in_order(marks: Mapping[str, Mark], older: Mapping[str, Mark]) -> dict[str, Mark]:
    merged = sorted({**marks, **older}.values(), key=lambda mark: mark.seq)
    return {mark.subject_id: mark for mark in merged}
