"""The behaviour windows of a worker: a Faust table whose store is our own.

Faust's memory store never drops what was written live when a partition is revoked, and its
recovery takes the last changelog record, whoever wrote it. This one is indexed by partition, and
the highest token wins: a worker that woke after a long stop may write an old window last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import faust
import msgspec
from faust.stores.base import Store
from faust.types import TP, EventT

from interest.errors import CorruptRecord, WrongKey
from interest.forgetting import Marker, joined
from interest.vector import Token
from interest.window import BehaviourWindow
from streams.popular import PopularItems
from streams.transport import Chunk
from streams.window_records import MARKER_KEY, Held, Tombstone, WindowRecords, marker_key

log = logging.getLogger(__name__)


class Partition:
    """Everything a worker holds of one partition; dropped whole when it is revoked."""

    def __init__(self, number: int, hash_of: Callable[[str], bytes]) -> None:
        self.number = number
        self.held: dict[str, Held] = {}
        #: Windows the changelog does not have yet, as they stood when it last had them.
        self.changed: dict[str, BehaviourWindow] = {}
        #: Tombstones the changelog must get, by record key.
        self.removed: dict[bytes, Tombstone] = {}
        self.markers: dict[bytes, Marker] = {}
        #: Markers the changelog must get, by subject hash.
        self.marked: dict[bytes, Marker] = {}
        self.popular = PopularItems()
        #: What a window that is not held must exceed: the highest token that was let go.
        self._floor = Token(0, 0, 0)
        self._tombstones: dict[bytes, Tombstone] = {}
        self._hash_of = hash_of

    @property
    def unwritten(self) -> bool:
        """True while the changelog lacks something of this partition."""
        return bool(self.changed or self.removed or self.marked)

    def window(self, subject_id: str) -> BehaviourWindow:
        """Give a subject's window; where there is none yet, an empty one to build on."""
        held = self.held.get(subject_id)
        if held is not None:
            return held.window
        below = self._below(subject_id)
        return BehaviourWindow(subject_id=subject_id, era=below.era, revision=below.revision)

    def marker(self, subject_id: str) -> Marker | None:
        """Give the marker of a person who was forgotten."""
        return self.markers.get(self._hash_of(subject_id)) if self.markers else None

    def _below(self, subject_id: str) -> Token:
        """Give the highest token under which something of this subject may be written."""
        held = self.held.get(subject_id)
        below = self._floor if held is None else held.token
        marker = self.marker(subject_id)
        return below if marker is None else max(below, marker.token)

    def replace(
        self,
        window: BehaviourWindow,
        generation: int,
        *,
        touched_ms: int | None = None,
        ahead: Mapping[str, int] | None = None,
    ) -> None:
        """Put a changed window in place; the next checkpoint writes it.

        A token of a later generation than ours means that the group was reset and counts anew:
        the era rises, so that recovery does not take the old window for the newer one.

        Args:
            touched_ms: when its user did something; without it the time is kept.
            ahead: see :class:`Held`; without it what is known is kept.
        """
        subject_id = window.subject_id
        below = self._below(subject_id)
        if below.generation > generation:
            window = msgspec.structs.replace(window, era=max(window.era, below.era + 1))
        self.changed.setdefault(subject_id, self.window(subject_id))
        self.removed.pop(subject_id.encode(), None)
        held = self.held.get(subject_id)
        if held is None:
            held = self.held[subject_id] = Held(window, generation)
        held.window, held.generation = window, generation
        if touched_ms is not None:
            held.touched_ms = touched_ms
        if ahead or held.ahead:
            ids = {event.event_id for event in window.events}
            held.ahead = {k: v for k, v in {**held.ahead, **(ahead or {})}.items() if k in ids}

    def claim(self, subject_id: str, generation: int) -> None:
        """Put a window that is encoded again under our generation, if it is of an earlier one.

        Its former owner may have stored a higher revision of the same content, which would
        refuse ours.
        """
        held = self.held.get(subject_id)
        if held is not None and held.generation < generation:
            self.replace(held.window, generation)

    def remove(self, subject_id: str) -> None:
        """Let a window go, here and with the next checkpoint from the changelog."""
        held = self.held[subject_id]
        self.changed.setdefault(subject_id, held.window)
        key = subject_id.encode()
        self.removed[key] = Tombstone(key, held.token)
        self._floor = max(self._floor, held.token)
        del self.held[subject_id]

    def forget(self, subject_id: str, time_ms: int, generation: int) -> Marker:
        """Forget a person up to a moment: set the marker, take what is older from the window.

        Returns:
            the marker, which outranks the window as it was; of a request that is known, the
            marker that answers it.
        """
        known = self.marker(subject_id)
        if known is not None and known.time_ms >= time_ms:
            return known
        below = self._below(subject_id)
        era = below.era + 1 if below.generation > generation else below.era
        marker = joined(
            Marker(self._hash_of(subject_id), time_ms, Token(era, generation, below.revision + 1)),
            known,
        )
        self.adopt(subject_id, marker, generation)
        return marker

    def adopt(self, subject_id: str, marker: Marker, generation: int) -> None:
        """Obey a marker, ours or one that the vector store holds."""
        known = self.markers.get(marker.subject_hash)
        marker = joined(marker, known)
        if marker != known:
            self.markers[marker.subject_hash] = self.marked[marker.subject_hash] = marker
            self.removed.pop(marker_key(marker), None)
        self._apply(subject_id, marker, generation)

    def unmark(self, marker: Marker) -> None:
        """Let a marker go whose time is over."""
        del self.markers[marker.subject_hash]
        self.marked.pop(marker.subject_hash, None)
        self.removed[marker_key(marker)] = Tombstone(marker_key(marker), marker.token)
        # A later marker of this person must outrank the tombstone.
        self._floor = max(self._floor, marker.token)

    def _apply(self, subject_id: str, marker: Marker, generation: int) -> None:
        held = self.held.get(subject_id)
        if held is None:
            return
        kept = tuple(
            event
            for event in held.window.events
            if not is_forgotten(int(event.ts), held.ahead.get(event.event_id), marker)
        )
        if held.token > marker.token and len(kept) == len(held.window.events):
            return  # it was built knowing the marker
        held.sound = None
        above = max(held.token, marker.token)
        window = msgspec.structs.replace(
            held.window, events=kept, era=above.era, revision=above.revision + 1
        )
        self.replace(window, generation)
        if not kept:
            self.remove(subject_id)

    def restore(self, entry: Held | Marker | Tombstone) -> None:
        """Take what a changelog record says, unless something higher is known."""
        if isinstance(entry, Marker):
            self._restore_marker(entry)
        elif isinstance(entry, Tombstone):
            self._restore_tombstone(entry)
        else:
            self._restore_window(entry)

    def _restore_marker(self, restored: Marker) -> None:
        marker = joined(restored, self.markers.get(restored.subject_hash))
        self.markers[marker.subject_hash] = marker
        if marker == restored:
            self.marked.pop(marker.subject_hash, None)
        else:
            # A zombie's, as below: compaction would keep only what it says.
            self.marked[marker.subject_hash] = marker

    def _restore_window(self, restored: Held) -> None:
        subject_id = restored.window.subject_id
        gone = self._tombstones.get(subject_id.encode())
        held = self.held.get(subject_id)
        if held is not None and held.token > restored.token:
            # A woken zombie wrote an old window last. Compaction would keep only that one, so
            # the next checkpoint writes ours again.
            self.changed.setdefault(subject_id, held.window)
            return
        if gone is not None and gone.token >= restored.token:
            self.removed[gone.key] = gone  # likewise, behind a tombstone
            return
        # Equal: a note on the same window (unresolved); the later one counts.
        self.popular.replace(() if held is None else held.window.events, restored.window.events)
        self.changed.pop(subject_id, None)
        self.removed.pop(subject_id.encode(), None)
        self.held[subject_id] = restored

    def _restore_tombstone(self, tombstone: Tombstone) -> None:
        subject_id = tombstone.key.decode(errors="replace")
        held = self.held.get(subject_id)
        if held is not None and held.token > tombstone.token:
            self.changed.setdefault(subject_id, held.window)  # a zombie's, as above
            return
        if held is not None:
            self.popular.replace(held.window.events, ())
            self.changed.pop(subject_id, None)
            del self.held[subject_id]
        self._floor = max(self._floor, tombstone.token)
        known = self._tombstones.get(tombstone.key)
        if known is None or known.token < tombstone.token:
            self._tombstones[tombstone.key] = tombstone

    def recovered(self, generation: int) -> None:
        """Finish the recovery: nothing older than a marker stays."""
        for tombstone in self._tombstones.values():
            marker = self.markers.get(tombstone.key.removeprefix(MARKER_KEY))
            if marker is None:
                continue
            if marker.token <= tombstone.token:
                del self.markers[marker.subject_hash]
                self.marked.pop(marker.subject_hash, None)
            else:
                self.marked[marker.subject_hash] = marker  # the tombstone may lie behind it
        self._tombstones.clear()
        if self.markers:
            for subject_id in list(self.held):
                marker = self.marker(subject_id)
                if marker is not None:
                    self._apply(subject_id, marker, generation)


def is_forgotten(ts: int, arrived_ms: int | None, marker: Marker) -> bool:
    """Tell whether an event belongs to what its person asked to be forgotten.

    Args:
        arrived_ms: Unix ms; None where the event's own time is not after it.
    """
    return ts <= marker.time_ms or (arrived_ms is not None and arrived_ms <= marker.time_ms)


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
        self.on_dropped: Callable[[int], None] = lambda number: None
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
            found = self.partitions[number] = Partition(number, self.hash_of)
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
            number = chunk.tp.partition
            if number not in self._assigned:
                continue  # Faust hands on what it has of a partition that was revoked
            partition = self.partitions.get(number) or self._restoring.setdefault(
                number, Partition(number, self.hash_of)
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
            self.partitions.pop(number, None)
            self._restoring.pop(number, None)
            self._recovering.discard(number)
            self.on_dropped(number)
        self._recovering |= fresh

    @property
    def _changelog(self) -> str:
        name: str = self.table.changelog_topic.get_topic_name()
        return name

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Announce the recovered partitions.

        Faust may be in the next assignment already, and call this for the one before: what came
        with the next is not recovered.
        """
        if self._unreadable is not None:
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

    def reset_state(self) -> None:
        """Forget everything."""
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
