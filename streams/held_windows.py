"""The windows a worker holds of one partition, and the events it has read and not folded yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence

import msgspec

from interest.event import Event, id_hash
from interest.fold import Change, change, difference
from interest.item_table import ItemTable
from interest.vector import Token
from interest.window import BehaviourWindow, WindowLimits
from streams.popular import PopularItems
from streams.window_map import WindowMap
from streams.window_records import Held

#: Told of a window, the events that were folded into it, and what it is then.
OnFolded = Callable[[BehaviourWindow, Sequence[Event], BehaviourWindow], None]


class HeldWindows(ABC):
    """Windows by subject.

    Events wait to be folded until somebody looks at the window, so that a flood of events costs one
    fold per look: look at it through :meth:`fold` and :meth:`window`.

    Args:
        items: what numbers the items of the windows.
        known_items: items that need not be waited for.
        held: where the windows are kept, empty.
    """

    def __init__(
        self,
        items: ItemTable,
        limits: WindowLimits,
        known_items: Container[str],
        held: WindowMap,
    ) -> None:
        self._limits = limits
        self._known_items = known_items
        self.held = held
        #: Numbers the items of the windows.
        self.items = items
        #: Events that are read and not folded yet, by subject.
        self.unfolded: dict[str, list[Event]] = {}
        #: Arrival of those whose own time lies after it, by the hash of the id.
        self._ahead: dict[bytes, int] = {}
        self._generation = 0
        self._touched_ms = 0
        #: Subjects whose window the changelog does not have yet, or not as it is.
        self.changed: set[str] = set()
        self.popular = PopularItems(items)
        #: What every token written here must reach, see :meth:`Partition.recovered`.
        self.least_era = 0
        self.on_folded: OnFolded | None = None

    @abstractmethod
    def below(self, subject_id: str) -> Token:
        """Give the highest token under which something of this subject may be written."""

    def each(self) -> Iterator[tuple[str, Held]]:
        """Look at every window, without folding; it may be changed or let go meanwhile.

        What is to be changed must be got anew, through :meth:`window`.
        """
        for subject_id in list(self.held):
            held = self.held.peek(subject_id)
            if held is not None:
                yield subject_id, held

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
        before = self._built_on(subject_id)
        changed = change(before, events, self._limits)
        if changed is None:
            self.claim(subject_id, self._generation)
            held = self.held.get(subject_id)
            if held is not None:
                held.note(ours, events)
            return held
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
        held.note(ours, events)
        if self.on_folded is not None:
            self.on_folded(before, events, held.window)
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
        below = self.below(subject_id)
        return BehaviourWindow(subject_id, era=below.era, revision=below.revision, items=self.items)

    def begin_table(self, items: ItemTable) -> None:
        """Number items by another table from here on; windows move when they are looked at."""
        self.items = items
        self.popular.renumber(items)

    def renumber(self, subject_id: str) -> None:
        """Move what is held of a subject to the present table."""
        held = self.held.peek(subject_id)
        if held is None:
            return
        window, sound = held.window, held.sound
        held.window = window.moved(self.items)
        if sound is not None:
            held.sound = held.window if sound is window else sound.moved(self.items)

    def replace(
        self,
        window: BehaviourWindow,
        generation: int,
        *,
        touched_ms: int | None = None,
        ahead: Mapping[bytes, int] | None = None,
    ) -> None:
        """Put a changed window in place; the next checkpoint writes it.

        What was read of the subject and is not folded yet will be folded on top of it.

        Args:
            touched_ms: when its user did something; without it the time is kept.
            ahead: see :class:`Held`; without it what is known is kept.
        """
        window = window.moved(self.items)
        moved = difference(self._built_on(window.subject_id), window)
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
        era = self.era_above(self.below(subject_id), generation)
        if window.era < era:
            window = msgspec.structs.replace(window, era=era)
        self.changed.add(subject_id)
        self.popular.move(change)
        if held is None:
            held = self.held[subject_id] = Held(window, generation)
        else:
            held.window, held.generation = window, generation
        return held

    def era_above(self, below: Token, generation: int) -> int:
        """Give the least era for a token of a generation that must be above another token."""
        return max(below.era + (below.generation > generation), self.least_era)

    def encoded(self, shown: Held, *, unresolved: bool) -> None:
        """Remember of a window that it could be encoded, and whether an item was missing.

        Args:
            shown: what was held when it was encoded; where the window has moved on since, it is
                dirty again, and what has come since is looked at then.
        """
        held = self.held.get(shown.window.subject_id)
        if held is None:
            return
        n = len(shown.fresh)
        if held.token != shown.token:
            if held.sound is shown.sound and held.fresh[:n] == shown.fresh:
                # Nothing but new events came over it: they alone are not proven yet.
                held.sound, held.fresh = shown.window, held.fresh[n:]
            return
        held.sound, held.fresh = held.window, ()
        self.held.encoded(shown.window.subject_id)
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
