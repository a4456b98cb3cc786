"""What a worker holds of one partition: windows, tombstones and markers, each ordered by token."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import msgspec

from interest.event import Event, id_hash
from interest.fold import Change, change, difference, only
from interest.forgetting import Marker, joined
from interest.item_table import SHARED, ItemTable
from interest.vector import Token
from interest.window import BehaviourWindow, WindowLimits
from streams.popular import PopularItems
from streams.window_records import MARKER_KEY, Held, Tombstone, marker_key


class Partition:
    """Everything a worker holds of one partition; dropped whole when it is revoked."""

    def __init__(
        self,
        number: int,
        hash_of: Callable[[str], bytes],
        items: ItemTable = SHARED,
        limits: WindowLimits | None = None,
        known_items: Container[str] = (),
    ) -> None:
        self.number = number
        self._limits = limits or WindowLimits()
        self._known_items = known_items
        self.held: dict[str, Held] = {}
        #: What numbers the items of the windows.
        self.items = items
        #: Events that are read and not folded yet, by subject: whoever looks at a window folds them
        #: first, so that a flood of events costs one fold per look.
        self.unfolded: dict[str, list[Event]] = {}
        #: Arrival of those whose own time lies after it, by the hash of the id.
        self._ahead: dict[bytes, int] = {}
        #: Record keys of users who are at home here and were never forgotten: key → the user's id.
        self.plain: dict[bytes, str] = {}
        self._generation = 0
        self._touched_ms = 0
        #: Subjects whose window the changelog does not have yet, or not as it is.
        self.changed: set[str] = set()
        #: Tombstones the changelog must get, by record key.
        self.removed: dict[bytes, Tombstone] = {}
        self.markers: dict[bytes, Marker] = {}
        #: Markers the changelog must get, by subject hash.
        self.marked: dict[bytes, Marker] = {}
        self.popular = PopularItems(items)
        #: What a window that is not held must exceed: the highest token that was let go.
        self._floor = Token(0, 0, 0)
        self._tombstones: dict[bytes, Tombstone] = {}
        self._hash_of = hash_of

    @property
    def unwritten(self) -> bool:
        """True while the changelog lacks something of this partition."""
        return bool(self.unfolded or self.changed or self.removed or self.marked)

    def reads(self, generation: int, now_ms: int, ahead: Mapping[bytes, int]) -> None:
        """Say who reads the events that are put in ``unfolded``, and when.

        Args:
            ahead: arrival of the events whose own time lies after it.
        """
        self._generation, self._touched_ms = generation, now_ms
        if ahead:
            self._ahead.update(ahead)

    def fold(self, subject_id: str) -> Held | None:
        """Fold what was read of a subject; return what is held, None for nothing."""
        events = self.unfolded.pop(subject_id, None)
        if events is None:
            return self.held.get(subject_id)
        ours: dict[bytes, int] | None = None
        if self._ahead:  # almost never: the broker's clock is behind a producer's
            hashes = [id_hash(event.event_id) for event in events]
            ours = {h: self._ahead.pop(h) for h in hashes if h in self._ahead}
        changed = change(self._built_on(subject_id), events, self._limits)
        if changed is None:
            self.claim(subject_id, self._generation)
            return self.held.get(subject_id)
        known = self._known_items
        if not changed.window.unresolved:
            for event in events:
                if event.item_id is not None and event.item_id not in known:
                    changed = changed._replace(
                        window=msgspec.structs.replace(changed.window, unresolved=True)
                    )
                    break
        held = self.put(changed, self._generation)
        held.touched_ms = self._touched_ms
        held.note(ours, [event.event_id for event in events])
        return held

    def window(self, subject_id: str) -> BehaviourWindow:
        """Give a subject's window; where there is none yet, an empty one to build on."""
        if subject_id in self.unfolded:
            self.fold(subject_id)
        return self._built_on(subject_id)

    def _built_on(self, subject_id: str) -> BehaviourWindow:
        held = self.held.get(subject_id)
        if held is not None:
            if held.window.items is not self.items:
                held.window = held.window.moved(self.items)
            return held.window
        below = self._below(subject_id)
        return BehaviourWindow(subject_id, era=below.era, revision=below.revision, items=self.items)

    def begin_table(self, items: ItemTable) -> None:
        """Number items by another table from here on; windows move when they are looked at."""
        self.items = items
        self.popular.renumber(items)

    def renumber(self, subject_id: str) -> None:
        """Move what is held of a subject to the present table."""
        held = self.held.get(subject_id)
        if held is None:
            return
        window, sound = held.window, held.sound
        held.window = window.moved(self.items)
        if sound is not None:
            held.sound = held.window if sound is window else sound.moved(self.items)

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
        ahead: Mapping[bytes, int] | None = None,
    ) -> None:
        """Put a changed window in place; the next checkpoint writes it.

        Args:
            touched_ms: when its user did something; without it the time is kept.
            ahead: see :class:`Held`; without it what is known is kept.
        """
        window = window.moved(self.items)
        moved = difference(self.window(window.subject_id), window)
        held = self.put(moved, generation)
        if touched_ms is not None:
            held.touched_ms = touched_ms
        held.trim(ahead)

    def put(self, change: Change, generation: int) -> Held:
        """Put what a window has changed to in place; the next checkpoint writes it.

        A token of a later generation than ours means that the group was reset and counts anew:
        the era rises, so that recovery does not take the old window for the newer one.

        Args:
            change: of the window as it stands.
        """
        window = change.window
        subject_id = window.subject_id
        held = self.held.get(subject_id)
        if held is None or self.markers:
            below = self._below(subject_id)
            later, era = below.generation, below.era
        else:
            later, era = held.generation, held.window.era
        if later > generation:
            window = msgspec.structs.replace(window, era=max(window.era, era + 1))
        self.changed.add(subject_id)
        if self.removed:
            self.removed.pop(subject_id.encode(), None)
        self.popular.move(change)
        if held is None:
            held = self.held[subject_id] = Held(window, generation)
        else:
            held.window, held.generation = window, generation
        return held

    def encoded(self, shown: Held, *, unresolved: bool) -> None:
        """Remember of a window that it could be encoded, and whether an item was missing.

        Args:
            shown: what was held when it was encoded; where the window has moved on since, it is
                dirty again, and looked at then.
        """
        held = self.held.get(shown.window.subject_id)
        if held is None or held.token != shown.token:
            return
        held.sound, held.fresh = held.window, ()
        if held.window.unresolved != unresolved:
            self.replace(
                msgspec.structs.replace(held.window, unresolved=unresolved), held.generation
            )

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
        above = max(held.token, marker.token)
        window = msgspec.structs.replace(kept, era=above.era, revision=above.revision + 1)
        self.replace(window, generation)
        if not len(window):
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
