"""The behaviour windows of a worker: a Faust table whose store is our own.

Faust's memory store never drops what was written live when a partition is revoked, and its
recovery takes the last changelog record, whoever wrote it. This one is indexed by partition, and
the highest token wins: a worker that woke after a long stop may write an old window last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, cast

import faust
from faust.stores.base import Store
from faust.types import TP, EventT

from interest.errors import CorruptRecord, WrongKey
from interest.item_table import ItemTable
from interest.window import BehaviourWindow, WindowLimits
from streams.held_windows import OnFolded
from streams.partitions import Partition
from streams.transport import Chunk
from streams.window_map import MemoryWindows, WindowMap
from streams.window_records import WindowRecords

log = logging.getLogger(__name__)


class WindowStore(Store[str, BehaviourWindow]):  # type: ignore[type-arg,misc,unused-ignore]
    """The table's storage: windows by partition and subject.

    A partition that is being recovered stands apart until all of its changelog is read: what
    touches, evicts or outbids a window would give the old record it has read so far a token
    above that of the newer one which it has yet to read.
    """

    #: Called with each partition that has been recovered, before its events are read.
    on_recovered: Callable[[Iterable[Partition]], None]
    #: How changelog records are read.
    records: WindowRecords
    hash_of: Callable[[str], bytes]
    #: What bounds a window, and which items need not be waited for.
    limits: WindowLimits
    known_items: Container[str]

    def __post_init__(self) -> None:
        #: What this worker owns, and has recovered.
        self.partitions: dict[int, Partition] = {}
        self._restoring: dict[int, Partition] = {}
        self._assigned: set[int] = set()
        #: Partitions to announce when their changelog is read; recovered ones may be read again.
        self._recovering: set[int] = set()
        #: Changelog records read so far; a sign of life.
        self.n_restored = 0
        self._generation: int | None = None
        self.on_recovered = lambda partitions: None
        self._unreadable: WrongKey | None = None
        #: Called with what must end this worker: windows that it cannot read.
        self.on_unreadable: Callable[[WrongKey], None] = lambda error: None
        self.limits, self.known_items = WindowLimits(), ()
        #: Where the windows of a partition are kept.
        self.make_held: Callable[[int], WindowMap] = lambda number: MemoryWindows()
        self.on_dropped: Callable[[int], None] = lambda number: None
        self.on_folded: OnFolded | None = None
        self.on_generation: Callable[[int], None] = lambda generation: None

    def partition(self, number: int) -> Partition:
        """Give a partition's state, empty at first.

        Raises:
            WrongKey: windows could not be read; nothing may be built on what is missing.
        """
        if self._unreadable is not None:
            raise self._unreadable
        found = self.partitions.get(number)
        if found is None:
            found = self.partitions[number] = self._empty(number)
        return found

    def _empty(self, number: int) -> Partition:
        partition = Partition(
            number, self.hash_of, self.records.items, self.limits, self.known_items,
            self.make_held(number),
        )  # fmt: skip
        partition.on_folded = self.on_folded
        return partition

    @property
    def item_table(self) -> ItemTable:
        """What numbers the items of windows that are new."""
        return self.records.items

    def all_partitions(self) -> list[Partition]:
        """Give what is held, also of partitions that are being recovered."""
        return [*self.partitions.values(), *self._restoring.values()]

    def begin_table(self, items: ItemTable) -> None:
        """Have new windows numbered by another table; old ones are moved by whoever begins it."""
        self.records.items = items
        for partition in self.all_partitions():
            partition.begin_table(items)

    def n_windows(self) -> int:
        """Count the windows in memory."""
        return sum(len(partition.held) for partition in self.partitions.values())

    def persisted_offset(self, tp: TP) -> int | None:
        """Nothing is on disk: recovery reads the whole changelog of a new partition."""
        return None

    def apply_changelog_batch(
        self,
        batch: Iterable[EventT[Any]],
        to_key: Callable[[Any], str],
        to_value: Callable[[Any], BehaviourWindow],
    ) -> None:
        """Recover from chunks of changelog records, the highest token winning."""
        for event in batch:
            chunk = cast(Chunk, event.message.value)
            number = chunk.tp.partition
            if number not in self._assigned:
                continue  # Faust hands on what it has of a partition that was revoked
            partition = self.partitions.get(number) or self._restoring.setdefault(
                number, self._empty(number)
            )
            self._recovering.add(number)
            self.n_restored += len(chunk.records)
            for record in chunk.records:
                try:
                    partition.restore(self.records.read(record))
                except WrongKey as error:
                    # To pass it over would lose the window, and every other of that key. Not
                    # raised: Faust would try for ever, and could not be stopped.
                    self._unreadable = error
                    self.on_unreadable(error)
                    return
                except CorruptRecord as error:
                    # Raising here would be swallowed by Faust's recovery loop, and the rest of
                    # the chunk with it. The window is rebuilt by the user's next events.
                    log.error(
                        "changelog %s offset %d is skipped: %s", chunk.tp, record.offset, error
                    )

    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],
        newly_assigned: set[TP],
        generation_id: int = 0,
    ) -> None:
        """Drop what another worker owns now, or may have owned meanwhile.

        Called before anything new is read. Faust calls a partition kept that this worker has
        before and after. Where a generation lies between that it was no member of (it was
        stopped, say), others may have written to it, and it is recovered as a new one.
        """
        missed = self._generation is not None and generation_id != self._generation + 1
        self._generation = generation_id
        self.on_generation(generation_id)
        changelog = self._changelog
        kept_before = {tp for tp in assigned - newly_assigned if tp.topic == changelog}
        self._assigned = {tp.partition for tp in assigned if tp.topic == changelog}
        gone = {tp.partition for tp in revoked if tp.topic == changelog}
        fresh = {tp.partition for tp in newly_assigned if tp.topic == changelog}
        if missed:
            gone |= {tp.partition for tp in kept_before}
            fresh |= {tp.partition for tp in kept_before}
            for tp in kept_before:
                cast(Any, self.app).tables.recovery.revoke(tp)  # else it reads on where it stopped
        for number in gone:
            for dropped in (self.partitions.pop(number, None), self._restoring.pop(number, None)):
                if dropped is not None:
                    dropped.held.close()
            self._recovering.discard(number)
            self.on_dropped(number)
        self._recovering |= fresh

    @property
    def _changelog(self) -> str:
        name: str = self.table.changelog_topic.get_topic_name()
        return name

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Announce the recovered partitions.

        Faust may be in the next assignment already, and call this for the one before, though with
        the partitions of the next: those are not read yet, and are announced when they are.
        """
        recovery = cast(Any, self.app).tables.recovery
        of_the_one_before = (
            recovery.signal_recovery_start.is_set() or recovery._generation_id != self._generation
        )
        if self._unreadable is not None or of_the_one_before:
            return
        read = {tp.partition for tp in active_tps if tp.topic == self._changelog}
        numbers = self._recovering & read
        self._recovering -= numbers
        recovered: list[Partition] = []
        for number in sorted(numbers):
            restored = self._restoring.pop(number, None)
            if restored is not None:
                self.partitions[number] = restored
            partition = self.partition(number)
            partition.recovered(self._generation or 0)
            recovered.append(partition)
        self.on_recovered(recovered)

    def backup_partition(self, *args: Any, **kwargs: Any) -> Any:
        """Windows have one copy on disk, the changelog."""
        raise TypeError("the changelog is the backup")

    def restore_backup(self, *args: Any, **kwargs: Any) -> Any:
        """Windows have one copy on disk, the changelog."""
        raise TypeError("the changelog is the backup")

    # The table interface of Faust; windows are changed through partitions, never through it.

    def __getitem__(self, key: str) -> BehaviourWindow:
        for partition in self.partitions.values():
            if key in partition.held:
                return partition.held[key].window
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        for partition in self.partitions.values():
            yield from partition.held

    def __len__(self) -> int:
        return self.n_windows()

    def __setitem__(self, key: str, value: BehaviourWindow) -> None:
        raise TypeError("windows are changed by their partition's owner, see Partition.replace")

    def __delitem__(self, key: str) -> None:
        raise TypeError("windows are dropped with their partition")

    def close(self) -> None:
        """Remove what lies on disk; what is in memory can still be looked at."""
        for partition in self.all_partitions():
            partition.held.close()

    def reset_state(self) -> None:
        """Forget everything."""
        self.close()
        self.partitions.clear()
        self._restoring.clear()


class WindowTable(faust.Table):  # type: ignore[type-arg,misc,unused-ignore]
    """The table of windows; its changelog is written by the checkpoint."""

    @property
    def windows(self) -> WindowStore:
        """The store behind the table."""
        store = self.data
        assert isinstance(store, WindowStore)
        return store

    def _new_store(self) -> WindowStore:
        return WindowStore("windows://", self.app, self, table_name=self.name)
