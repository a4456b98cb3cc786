"""The dirty users: who waits to be encoded, each once, oldest first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec


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
    A user who is marked again while in flight waits a second time.
    """

    def __init__(self) -> None:
        self._next_seq = 1
        self._waiting: dict[str, Mark] = {}
        self._in_flight: dict[int, Mark] = {}
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    @property
    def last_seq(self) -> int:
        """The newest mark's number; 0 before the first."""
        return self._next_seq - 1

    def mark(self, subject_id: str, partition: int, since_ms: int | None) -> None:
        """Say that a user must be encoded; who already waits keeps place and time.

        The older time stamp stays: freshness is counted for the event that waited longest.
        """
        held = self._waiting.get(subject_id)
        if held is None:
            self._waiting[subject_id] = Mark(self._next_seq, subject_id, partition, since_ms)
            self._next_seq += 1
            self._changed.set()
        elif held.since_ms is None and since_ms is not None:
            self._waiting[subject_id] = msgspec.structs.replace(held, since_ms=since_ms)

    async def wait(self) -> None:
        """Return when somebody waits."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()

    def take(self, cost: Callable[[Mark], int], budget: int) -> list[Mark]:
        """Move the oldest marks in flight, until their cost passes ``budget``; at least one.

        A user who is in flight already is passed over, so that two encodes of one user never
        run at the same time.
        """
        taken: list[Mark] = []
        busy = {mark.subject_id for mark in self._in_flight.values()}
        spent = 0
        for mark in self._waiting.values():
            if mark.subject_id in busy:
                continue
            spent += cost(mark)
            if taken and spent > budget:
                break
            taken.append(mark)
        for mark in taken:
            del self._waiting[mark.subject_id]
            self._in_flight[mark.seq] = mark
        return taken

    def confirm(self, marks: Sequence[Mark]) -> None:
        """Say that vectors at least as new as these marks are readable, or the users gone."""
        for mark in marks:
            self._in_flight.pop(mark.seq, None)
        self._settled.set()

    def put_back(self, marks: Sequence[Mark]) -> None:
        """Let marks wait again under their old numbers: their encode failed."""
        again = {mark.subject_id: mark for mark in marks if self._in_flight.pop(mark.seq, None)}
        if again:
            # Where the user waits again already, the older mark stands for both.
            waiting = sorted({**self._waiting, **again}.values(), key=lambda mark: mark.seq)
            self._waiting = {mark.subject_id: mark for mark in waiting}
            self._changed.set()

    def drop_partition(self, partition: int) -> None:
        """Forget the marks of a partition that another worker owns now."""
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
        waiting = next(iter(self._waiting.values())).seq if self._waiting else self._next_seq
        return min(waiting, min(self._in_flight, default=self._next_seq))
