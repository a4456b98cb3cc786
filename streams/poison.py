"""What becomes of a window that cannot be encoded: its poison turns into dead letters."""

from __future__ import annotations

import logging

import msgspec

from interest import metrics as m
from interest.clock import Clock
from interest.event import Event, id_hash, name_of
from interest.fold import joined, only
from interest.ports import Metrics
from interest.window import Row, WindowLimits, behaviour, event_of
from streams.dead_letters import POISON, poison_letter
from streams.dirty import DirtyUsers
from streams.encoding import Isolated, WindowEncoding
from streams.micro_batches import Poisoned
from streams.outbox import Outbox
from streams.partitions import Partition, is_forgotten
from streams.progress import Progress
from streams.topics import TopicNames
from streams.upserts import Job
from streams.window_records import event_id_of
from streams.windows import WindowStore

log = logging.getLogger(__name__)


class Poison:
    """Takes poison events out of windows."""

    def __init__(
        self,
        *,
        names: TopicNames,
        limits: WindowLimits,
        encoding: WindowEncoding,
        windows: WindowStore,
        dirty: DirtyUsers,
        progress: Progress,
        outbox: Outbox,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._names = names
        self._limits = limits
        self._encoding = encoding
        self._windows = windows
        self._dirty = dirty
        self._progress = progress
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics

    async def remove(self, found: Poisoned) -> None:
        """Isolate the poison of one user, bury it, and let the rest be encoded.

        The letters are acknowledged before the window changes: killed in between, the next
        owner finds the same poison and writes the same letters.
        """
        job = found.job
        held = job.held
        isolated = await self._encoding.isolate(
            held.window, held.sound, held.new_events, found.items
        )
        letters = [row for row in isolated.poison if not self._is_forgotten(row, job)]
        if letters:
            log.warning("%d events of a user cannot be encoded (%s)", len(letters),
                        type(found.error).__name__)  # fmt: skip
            await self._outbox.send_all(
                [
                    poison_letter(
                        self._names.dead_letters,
                        _event(row, job),
                        job.mark.partition,
                        found.error,
                        self._clock(),
                    )
                    for row in letters
                ]
            )
            self._metrics.count(m.POISON, len(letters))
            self._metrics.count(m.DEAD_LETTERS, len(letters), POISON)
        partition = self._windows.partitions.get(job.mark.partition)
        if partition is not None and job.mark.subject_id in partition.held:
            self._put_in_place(partition, found, isolated)
            self._dirty.mark(job.mark.subject_id, partition.number, job.mark.since_ms)
        self._dirty.confirm([job.mark])

    def _is_forgotten(self, row: Row, job: Job) -> bool:
        """Tell whether an event's person was forgotten meanwhile, and its letter must not be."""
        partition = self._windows.partitions.get(job.mark.partition)
        marker = None if partition is None else partition.marker(job.mark.subject_id)
        return marker is not None and is_forgotten(row.ts, job.held.ahead.get(row.id_hash), marker)

    def _put_in_place(self, partition: Partition, found: Poisoned, isolated: Isolated) -> None:
        tried = found.job.held
        subject_id = tried.window.subject_id
        window = partition.window(subject_id)
        poison = {row.id_hash for row in isolated.poison}
        if not poison:
            return
        # What the poison had pushed out comes back, but for what was forgotten meanwhile.
        back, marker = isolated.window, partition.marker(subject_id)
        if marker is not None:
            back = only(
                back, lambda ts, hashed: not is_forgotten(ts, tried.ahead.get(hashed), marker)
            )
        clean = joined(only(window, lambda ts, hashed: hashed not in poison), back, self._limits)
        held = partition.held[subject_id]
        held.fresh = tuple(e for e in held.fresh if id_hash(event_id_of(e)) not in poison)
        partition.replace(
            msgspec.structs.replace(clean, revision=window.revision + 1),
            self._progress.generation,
        )


def _event(row: Row, job: Job) -> Event:
    """Give the event of a row; of one that was encoded before, the id may not be known any more."""
    window = job.held.window
    ids = {id_hash(event_id): event_id for event_id in map(event_id_of, job.held.fresh)}
    event_id = ids.get(row.id_hash) or name_of(row.id_hash)
    return event_of(behaviour(row, window.items), window.subject_id, event_id)
