"""The behaviour windows of a worker: a Faust table whose store is our own.

Faust's memory store never drops what was written live when a partition is revoked, and its
recovery takes the last changelog record, whoever wrote it. This one is indexed by partition, and
the highest token wins: a worker that woke after a long stop may write an old window last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import faust
import msgspec
from faust.stores.base import Store
from faust.types import TP, EventT

from interest.errors import CorruptRecord
from interest.vector import Token
from interest.window import BehaviourWindow, window_from_bytes
from streams.popular import PopularItems
from streams.transport import Chunk

log = logging.getLogger(__name__)


class Held(msgspec.Struct):
    """A window in memory, and the generation of the worker that last changed it."""

    window: BehaviourWindow
    generation: int

    @property
    def token(self) -> Token:
        """What orders writes of this window."""
        return Token(self.window.era, self.generation, self.window.revision)


class Partition:
    """Everything a worker holds of one partition; dropped whole when it is revoked."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.held: dict[str, Held] = {}
        #: Windows the changelog does not have yet, as they stood when it last had them.
        self.changed: dict[str, BehaviourWindow] = {}
        self.popular = PopularItems()

    def window(self, subject_id: str) -> BehaviourWindow:
        """Give a subject's window; an empty one where there is none yet."""
        held = self.held.get(subject_id)
        return BehaviourWindow(subject_id=subject_id) if held is None else held.window

    def replace(self, window: BehaviourWindow, generation: int) -> None:
        """Put a changed window in place; the next checkpoint writes it.

        A window of a later generation than ours means that the group was reset and counts anew:
        the era rises, so that recovery does not take the old window for the newer one.
        """
        held = self.held.get(window.subject_id)
        if held is not None and held.generation > generation:
            window = msgspec.structs.replace(window, era=max(window.era, held.window.era + 1))
        self.changed.setdefault(window.subject_id, self.window(window.subject_id))
        self.held[window.subject_id] = Held(window, generation)

    def restore(self, raw: bytes) -> None:
        """Take a changelog record, unless a higher token is held.

        Raises:
            CorruptRecord: the bytes are no window.
        """
        window, generation = window_from_bytes(raw)
        restored = Held(window, generation)
        held = self.held.get(window.subject_id)
        if held is None:
            self.popular.replace((), window.events)
        elif restored.token >= held.token:
            # Equal: a note on the same window (unresolved); the later one counts.
            self.popular.replace(held.window.events, window.events)
            self.changed.pop(window.subject_id, None)
        else:
            # A woken zombie wrote an old window last. Compaction would keep only that one, so
            # the next checkpoint writes ours again.
            self.changed.setdefault(window.subject_id, held.window)
            return
        self.held[window.subject_id] = restored


class WindowStore(Store[str, BehaviourWindow]):  # type: ignore[type-arg,misc,unused-ignore]
    """The table's storage: windows by partition and subject."""

    #: Called with each partition that has been recovered, before its events are read.
    on_recovered: Callable[[Iterable[Partition]], None]

    def __post_init__(self) -> None:
        self.partitions: dict[int, Partition] = {}
        self._recovering: set[int] = set()
        self.on_recovered = lambda partitions: None
        self.on_dropped: Callable[[int], None] = lambda number: None
        self.on_generation: Callable[[int], None] = lambda generation: None

    def partition(self, number: int) -> Partition:
        """Give a partition's state, empty at first."""
        found = self.partitions.get(number)
        if found is None:
            found = self.partitions[number] = Partition(number)
        return found

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
            partition = self.partition(chunk.tp.partition)
            self._recovering.add(chunk.tp.partition)
            for record in chunk.records:
                if record.value is None:
                    continue
                try:
                    partition.restore(record.value)
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
        """Drop what another worker owns now; called before anything new is read."""
        self.on_generation(generation_id)
        changelog = self.table.changelog_topic.get_topic_name()
        for tp in revoked:
            if tp.topic == changelog:
                self.partitions.pop(tp.partition, None)
                self._recovering.discard(tp.partition)
                self.on_dropped(tp.partition)
        self._recovering |= {tp.partition for tp in newly_assigned if tp.topic == changelog}

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Announce the recovered partitions."""
        recovered, self._recovering = self._recovering, set()
        self.on_recovered([self.partition(number) for number in sorted(recovered)])

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

    def reset_state(self) -> None:
        """Forget everything."""
        self.partitions.clear()


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
