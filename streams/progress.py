"""How far the source topics are read, and committed."""

from __future__ import annotations

import asyncio

from faust.types import TP


class Progress:
    """Offsets of one assignment: they belong to a consumer-group ``generation``.

    An agent may still hold a chunk of an earlier generation when the partition has been away
    and has come back. What it folds went into windows that were dropped, so its position must
    not be committed: reports of another generation are not taken.

    ``positions`` is the next offset to read of each partition of which something was read: all
    before it is folded (or encoded and announced, or sent on). ``committed`` is what the broker
    is known to have; where reading began counts as committed, since it came from there.
    """

    def __init__(self) -> None:
        self.generation = -1
        self.positions: dict[TP, int] = {}
        self.committed: dict[TP, int] = {}
        #: Partitions of which the broker took a commit in this generation.
        self.confirmed: set[TP] = set()
        #: Held while a commit is under way: one that moves nothing, sent behind another that
        #: does, would move back.
        self.committing = asyncio.Lock()
        self._moved = asyncio.Event()
        #: Set when so much is uncommitted that the checkpoint should not wait for its timer.
        self.pressed = asyncio.Event()
        #: True while reading waits for :meth:`room`.
        self.full = False

    def start(self, generation: int) -> None:
        """Start a generation anew: everything is read again from the commit."""
        self.generation = generation
        self.positions.clear()
        self.committed.clear()
        self.confirmed.clear()
        self._moved.set()

    def began(self, tp: TP, offset: int) -> None:
        """Say that a partition is read from ``offset`` on, unless that is known."""
        self.committed.setdefault(tp, offset)

    def advanced(self, tp: TP, offset: int, generation: int) -> bool:
        """Say that everything before ``offset`` may be committed, given its windows are safe.

        Returns:
            False where the chunk is of another generation: drop the rest of it.
        """
        if generation != self.generation:
            return False
        self.positions[tp] = offset
        return True

    def pending(self) -> dict[TP, int]:
        """Give the positions the broker does not have yet."""
        return {
            tp: offset for tp, offset in self.positions.items() if self.committed.get(tp) != offset
        }

    def confirm(self, offsets: dict[TP, int], generation: int) -> None:
        """Say that the broker took a commit; what another generation committed is not noted."""
        if generation == self.generation:
            self.committed.update(offsets)
            self.confirmed.update(offsets)
            self._moved.set()

    @property
    def uncommitted(self) -> int:
        """Count the records that were read and are not committed."""
        return sum(
            max(0, offset - self.committed.get(tp, offset)) for tp, offset in self.positions.items()
        )

    async def room(self, limit: int, generation: int) -> None:
        """Wait until at most ``limit`` records are uncommitted, or the generation has ended."""
        if self.uncommitted > limit / 2:
            self.pressed.set()
        try:
            while generation == self.generation and self.uncommitted > limit:
                self.full = True
                self._moved.clear()
                await self._moved.wait()
        finally:
            self.full = False
