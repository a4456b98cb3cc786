"""How far the source topics are read, and committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from faust.types import TP

from streams.transport import Chunk

log = logging.getLogger(__name__)


class Progress:
    """Offsets of one assignment: they belong to a consumer-group ``generation``.

    Between the consumer and an agent lies a queue of Faust's, which is cleared by rebalances, and
    an agent may still hold a chunk when the partition has been away and has come back, even under
    the same generation, as there are brokers that give a number twice. What such a chunk brings
    goes into windows that were dropped. So chunks are taken only of the present *lap*, which begins
    wherever reading begins anew, and each must go on where the one before it ended.

    ``positions`` is the next offset to read of each partition of which something was read: all
    before it is folded (or encoded and announced, or sent on). ``committed`` is what the broker
    is known to have; where reading began counts as committed, since it came from there.
    """

    def __init__(self) -> None:
        self.generation = -1
        #: The number of the last seek; 0 between an assignment and the first.
        self.lap = 0
        #: Where the next chunk of each partition must go on.
        self._next: dict[TP, int] = {}
        #: Called where one is missing: everything is to be read again from the commits.
        self.on_gap: Callable[[], None] = lambda: None
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
        self.lap = 0
        self._next.clear()
        self.positions.clear()
        self.committed.clear()
        self.confirmed.clear()
        self._moved.set()

    def seek(self, lap: int, offsets: Mapping[TP, int]) -> None:
        """Say where partitions are read from in the lap that begins."""
        self.lap = lap
        self._next = dict(offsets)

    def take(self, chunk: Chunk) -> bool:
        """Take note of a chunk that an agent is about to handle.

        Returns:
            False where it must not be handled: it was fetched before reading began anew, or one
            before it is missing. It will be read again, here or elsewhere.
        """
        if chunk.generation != self.generation or chunk.lap != self.lap:
            return False
        expected = self._next.get(chunk.tp)
        if chunk.follows != expected:
            if self._next:  # else that was said before
                log.warning("%s goes on at %d instead of %s: all is read again",
                            chunk.tp, chunk.follows, expected)  # fmt: skip
                self._next.clear()
                self.on_gap()
            return False
        self._next[chunk.tp] = chunk.records[-1].offset + 1
        self.committed.setdefault(chunk.tp, chunk.records[0].offset)
        return True

    def advanced(self, tp: TP, offset: int, lap: int) -> bool:
        """Say that everything before ``offset`` may be committed, given its windows are safe.

        Returns:
            False where the lap is over: drop the rest of the chunk.
        """
        if lap != self.lap:
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
