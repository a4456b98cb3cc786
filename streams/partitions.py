"""What a worker holds of one partition: windows, tombstones and markers, each ordered by token."""

from __future__ import annotations

from collections.abc import Callable, Container

import msgspec

from interest.event import id_hash
from interest.fold import Change, only
from interest.forgetting import Marker, joined
from interest.item_table import SHARED, ItemTable
from interest.vector import Token
from interest.window import WindowLimits
from streams.held_windows import HeldWindows
from streams.window_map import MemoryWindows, WindowMap
from streams.window_records import ERA_KEY, MARKER_KEY, Held, Tombstone, marker_key

#: Below every token: nothing was recovered.
_NOTHING = Token(0, -1, 0)


class Partition(HeldWindows):
    """Everything a worker holds of one partition; dropped whole when it is revoked."""

    def __init__(
        self,
        number: int,
        hash_of: Callable[[str], bytes],
        items: ItemTable = SHARED,
        limits: WindowLimits | None = None,
        known_items: Container[str] = (),
        held: WindowMap | None = None,
    ) -> None:
        held = MemoryWindows() if held is None else held
        super().__init__(items, limits or WindowLimits(), known_items, held)
        self.number = number
        #: Record keys of users who are at home here and were never forgotten: key → the user's id.
        self.plain: dict[bytes, str] = {}
        #: Tombstones the changelog must get, by record key.
        self.removed: dict[bytes, Tombstone] = {}
        self.markers: dict[bytes, Marker] = {}
        #: Markers the changelog must get, by subject hash.
        self.marked: dict[bytes, Marker] = {}
        #: What a window that is not held must exceed: the highest token that was let go.
        self._floor = Token(0, 0, 0)
        self._tombstones: dict[bytes, Tombstone] = {}
        #: The highest token in the changelog.
        self._restored = _NOTHING
        #: Says that the era has risen for all windows; the changelog must have it before any
        #: vector of that era is written.
        self.risen: Tombstone | None = None
        self._hash_of = hash_of

    @property
    def unwritten(self) -> bool:
        """True while the changelog lacks something of this partition."""
        return bool(self.unfolded or self.changed or self.removed or self.marked)

    def put(self, change: Change, generation: int) -> Held:
        """Put what a window has changed to in place of a tombstone, too."""
        if self.removed:
            self.removed.pop(change.window.subject_id.encode(), None)
        return super().put(change, generation)

    def encoded(self, shown: Held, *, unresolved: bool) -> None:
        """Remember of a window that it could be encoded; not of what was forgotten meanwhile."""
        marker = self.marker(shown.window.subject_id)
        if marker is None or shown.token > marker.token:
            super().encoded(shown, unresolved=unresolved)

    def marker(self, subject_id: str) -> Marker | None:
        """Give the marker of a person who was forgotten."""
        return self.markers.get(self._hash_of(subject_id)) if self.markers else None

    def below(self, subject_id: str) -> Token:
        """Give the highest token under which something of this subject may be written."""
        held = self.held.get(subject_id)
        token = self._floor if held is None else held.token
        marker = self.marker(subject_id)
        return token if marker is None else max(token, marker.token)

    def remove(self, subject_id: str) -> None:
        """Let a window go, here and with the next checkpoint from the changelog."""
        window = self.window(subject_id)
        held = self.held[subject_id]
        self.changed.add(subject_id)
        self.popular.drop(window)
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
        self.fold(subject_id)
        known = self.marker(subject_id)
        if known is not None and known.time_ms >= time_ms:
            return known
        below = self.below(subject_id)
        era = self.era_above(below, generation)
        marker = joined(
            Marker(self._hash_of(subject_id), time_ms, Token(era, generation, below.revision + 1)),
            known,
        )
        self.adopt(subject_id, marker, generation)
        return marker

    def adopt(self, subject_id: str, marker: Marker, generation: int) -> None:
        """Obey a marker, ours or one that the vector store holds."""
        self.plain.pop(subject_id.encode(), None)
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
        held = self.fold(subject_id)
        if held is None:
            return
        ahead = held.ahead
        kept = only(
            held.window,
            lambda ts, hashed: not is_forgotten(ts, ahead.get(hashed), marker),
        )
        if held.token > marker.token and kept is held.window:
            return  # it was built knowing the marker
        held.sound = None
        left = kept.id_hashes()
        held.fresh = tuple(
            event
            for event in held.fresh
            if (
                id_hash(event) in left
                if isinstance(event, str)
                else not is_forgotten(event.ts, ahead.get(id_hash(event.event_id)), marker)
            )
        )
        above = max(held.token, marker.token)
        window = msgspec.structs.replace(kept, era=above.era, revision=above.revision + 1)
        self.replace(window, generation)
        if not len(window):
            self.remove(subject_id)

    def restore(self, entry: Held | Marker | Tombstone) -> None:
        """Take what a changelog record says, unless something higher is known."""
        if entry.token > self._restored:
            self._restored = entry.token
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
            self.changed.add(subject_id)
            return
        if gone is not None and gone.token >= restored.token:
            self.removed[gone.key] = gone  # likewise, behind a tombstone
            return
        # Equal: a note on the same window (unresolved); the later one counts.
        if held is not None:
            self.popular.drop(self.window(subject_id))
        restored.window = restored.window.moved(self.items)
        self.popular.add(restored.window)
        self.changed.discard(subject_id)
        self.removed.pop(subject_id.encode(), None)
        self.held[subject_id] = restored

    def _restore_tombstone(self, tombstone: Tombstone) -> None:
        subject_id = tombstone.key.decode(errors="replace")
        held = self.held.get(subject_id)
        if held is not None and held.token > tombstone.token:
            self.changed.add(subject_id)  # a zombie's, as above
            return
        if held is not None:
            self.popular.drop(self.window(subject_id))
            self.changed.discard(subject_id)
            del self.held[subject_id]
        self._floor = max(self._floor, tombstone.token)
        known = self._tombstones.get(tombstone.key)
        if known is None or known.token < tombstone.token:
            self._tombstones[tombstone.key] = tombstone

    def recovered(self, generation: int) -> None:
        """Finish the recovery: nothing older than a marker stays.

        No era below the highest one of the changelog is written: what a former owner wrote under
        that one, of users whom the changelog does not have yet, may still be on its way to Redis.

        Whoever wrote in our generation already, or in a later one, was an owner as well: the
        broker counts anew, or twice the same, and a zombie of that number may write revisions
        above ours. So our era rises above what there is.
        """
        self.least_era = self._restored.era
        if self._restored.generation >= generation:
            self.least_era += 1
            self.risen = Tombstone(ERA_KEY, Token(self.least_era, generation, 0))
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
        self.popular.count()  # the notes of a recovery take half as much as its windows
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
