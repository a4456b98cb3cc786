"""How far the source topics are read, and committed."""

from __future__ import annotations

from faust.types import TP


class Progress:
    """Offsets of the partitions of this assignment.

    ``positions`` is the next offset to read of each partition of which something was read: all
    before it is folded (or encoded and announced, or sent on). ``committed`` is what the broker
    is known to have; where reading began counts as committed, since it came from there.
    """

    def __init__(self) -> None:
        self.positions: dict[TP, int] = {}
        self.committed: dict[TP, int] = {}

    def began(self, tp: TP, offset: int) -> None:
        """Say that a partition is read from ``offset`` on, unless that is known."""
        self.committed.setdefault(tp, offset)

    def advanced(self, tp: TP, offset: int) -> None:
        """Say that everything before ``offset`` may be committed, given its windows are safe."""
        self.positions[tp] = offset

    def pending(self) -> dict[TP, int]:
        """Give the positions the broker does not have yet."""
        return {
            tp: offset for tp, offset in self.positions.items() if self.committed.get(tp) != offset
        }

    def of_partition(self, partition: int) -> dict[TP, int]:
        """Give what is committed of one partition of all topics: a commit that moves nothing."""
        return {tp: offset for tp, offset in self.committed.items() if tp.partition == partition}

    def clear(self) -> None:
        """Start anew: after a rebalance everything is read again from the commit."""
        self.positions.clear()
        self.committed.clear()
