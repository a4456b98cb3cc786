"""Promises broken on purpose, in a worker process of the harness: it must notice each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from interest.event import Event
from interest.fold import Change, difference, enters_window, row_of
from interest.window import BehaviourWindow, WindowLimits
from store import redis_link, redis_vectors, scripts
from streams import held_windows
from streams.checkpoint import Checkpoint
from streams.partitions import Partition
from streams.transport import ChunkConsumer
from streams.window_map import MemoryWindows

_COMPARE: Final = "local function newer(a, i, b, j)"


def commit_first() -> None:
    """Commit what was read before the changelog has it."""
    take = Checkpoint.take

    async def faulty(self: Checkpoint, consumer: ChunkConsumer) -> bool:
        progress = self._progress
        noted, generation = progress.pending(), progress.generation
        if noted and await consumer.commit_offsets(noted, generation):
            progress.confirm(noted, generation)
        return await take(self, consumer)

    Checkpoint.take = faulty  # type: ignore[method-assign]


def no_cas() -> None:
    """Store every vector, whatever token is there."""
    script = scripts.UPSERT
    if _COMPARE not in script.text:
        raise RuntimeError("the upsert script compares in another way now; adapt this fault")
    text = script.text.replace(_COMPARE, f"{_COMPARE}\n  if true then return false end")
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    faulty = msgspec.structs.replace(script, text=text, sha=sha)
    vars(redis_vectors)["UPSERT"] = faulty
    vars(redis_link)["SCRIPTS"] = (*scripts.SCRIPTS, faulty)


def no_event_id() -> None:
    """Fold without asking whether an event is there already."""

    def faulty(
        window: BehaviourWindow, events: Iterable[Event], limits: WindowLimits
    ) -> Change | None:
        arrived = [
            row_of(event, window.subject_id, window.items, limits.text_chars)
            for event in events
            if enters_window(event)
        ]
        if not arrived:
            return None
        newest = sorted([*window.rows(), *arrived])[-limits.max_events :]
        kept = [row for row in newest if row.ts > newest[-1].ts - limits.span_ms]
        folded = window.with_rows(kept)
        return difference(window, msgspec.structs.replace(folded, revision=window.revision + 1))

    vars(held_windows)["change"] = faulty


def last_record() -> None:
    """Recover the last changelog record of a user, whoever wrote it."""
    restore = Partition.restore

    def faulty(self: Partition, *args: Any, **kwargs: Any) -> None:
        held, self.held = self.held, MemoryWindows()
        restore(self, *args, **kwargs)
        self.held = MemoryWindows({**held, **self.held})

    Partition.restore = faulty  # type: ignore[method-assign]


FAULTS: Final[dict[str, Callable[[], None]]] = {
    "commit-first": commit_first,
    "no-cas": no_cas,
    "no-event-id": no_event_id,
    "last-record": last_record,
}
