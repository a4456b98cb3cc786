"""What an agent does with a chunk of events: decode, fold, mark the users dirty. Nothing more.

Encoding is a task of its own, so a slow encoder never stalls the intake, and overload coalesces.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from interest import metrics as m
from interest.clock import Clock
from interest.errors import InvalidEvent
from interest.event import Event, check_not_ahead, decode_event, encode_event, id_hash
from interest.fold import change, enters_window
from interest.partition import partition_of
from interest.ports import Metrics, Sealer
from interest.pseudonyms import Pseudonyms
from interest.window import WindowLimits
from streams.dead_letters import dead_letter
from streams.dirty import DirtyUsers
from streams.outbox import Outbox, Record
from streams.partitions import Partition, is_forgotten
from streams.progress import Progress
from streams.routing import arrived_ms, sent_on_headers
from streams.topics import TopicNames
from streams.transport import Chunk
from streams.windows import WindowStore

#: Records handled in one go; between two goes the loop serves encoder, heartbeats and probes.
_SLICE: Final = 256
_LOG_APPEND_TIME: Final = 1


class Ingest:
    """Folds chunks of ``behaviours`` and ``routed`` into the windows of this worker."""

    def __init__(
        self,
        *,
        names: TopicNames,
        n_partitions: int,
        limits: WindowLimits,
        windows: WindowStore,
        dirty: DirtyUsers,
        progress: Progress,
        outbox: Outbox,
        known_items: Container[str],
        max_uncommitted: int,
        pseudonym: Pseudonyms,
        sealer: Sealer,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._names = names
        self._limits = limits
        self._windows = windows
        self._dirty = dirty
        self._progress = progress
        self._outbox = outbox
        self._known_items = known_items
        self._max_uncommitted = max_uncommitted
        self._pseudonym = pseudonym
        self._sealer = sealer
        self._clock = clock
        self._metrics = metrics
        # Hashing a key in Python costs more than decoding its event; users come back.
        self._home = lru_cache(maxsize=200_000)(lambda user: partition_of(user, n_partitions))

    async def handle(self, chunk: Chunk) -> None:
        """Fold a chunk; when it returns, what left for other topics is acknowledged."""
        if chunk.generation != self._progress.generation:
            return  # fetched before a rebalance: it will be read again, here or elsewhere
        partition = self._windows.partition(chunk.tp.partition)
        self._progress.began(chunk.tp, chunk.records[0].offset)
        for first in range(0, len(chunk.records), _SLICE):
            # A sink that is away holds the commit, and this holds the intake.
            await self._progress.room(self._max_uncommitted, chunk.generation)
            if chunk.generation != self._progress.generation:
                return
            records = chunk.records[first : first + _SLICE]
            outgoing = self._fold(partition, records, chunk.generation)
            if outgoing:
                await self._outbox.send_all(outgoing)
            else:
                await asyncio.sleep(0)
            # Only now: the checkpoint may commit this position at any moment.
            if not self._progress.advanced(chunk.tp, records[-1].offset + 1, chunk.generation):
                return

    def _fold(self, partition: Partition, records: Sequence[Any], generation: int) -> list[Record]:
        outgoing: list[Record] = []
        by_subject: defaultdict[str, list[Event]] = defaultdict(list)
        since_ms: dict[str, int] = {}
        ahead: dict[bytes, int] = {}
        n_dropped = 0
        by_type: defaultdict[str, int] = defaultdict(int)
        now_ms = self._clock()
        for record in records:
            try:
                event = self._decode(record, now_ms)
                home = self._home(event.user_id)
                if home != partition.number:
                    outgoing.append(self._route(record, event, home))
                    continue
            except InvalidEvent as error:
                if self._is_of_a_forgotten(record, partition):
                    n_dropped += 1
                    continue
                self._metrics.count(m.DEAD_LETTERS, 1, error.reason)
                outgoing.append(
                    dead_letter(self._names.dead_letters, record, error, now_ms, self._sealer)
                )
                continue
            by_type[event.type.value] += 1
            if not enters_window(event):
                continue
            arrived = arrived_ms(record, sent_on=record.topic == self._names.routed)
            if partition.markers:
                marker = partition.marker(event.user_id)
                if marker is not None and is_forgotten(event.ts, arrived, marker):
                    n_dropped += 1
                    continue
            if event.ts > arrived:
                ahead[id_hash(event.event_id)] = arrived
            by_subject[event.user_id].append(event)
            since_ms.setdefault(event.user_id, arrived)
        for subject_id, events in by_subject.items():
            self._fold_subject(partition, subject_id, events, ahead, generation)
            # Also where nothing changed: the vector that contains the event may not have been
            # stored before the crash that makes us read it again.
            self._dirty.mark(subject_id, partition.number, since_ms[subject_id])
        for event_type, n in by_type.items():
            self._metrics.count(m.EVENTS, n, event_type)
        if n_dropped:
            self._metrics.count(m.DROPPED, n_dropped)
        return outgoing

    def _fold_subject(
        self,
        partition: Partition,
        subject_id: str,
        events: list[Event],
        ahead: Mapping[bytes, int],
        generation: int,
    ) -> None:
        changed = change(partition.window(subject_id), events, self._limits)
        if changed is None:
            partition.claim(subject_id, generation)
            return
        if not changed.window.unresolved and any(
            event.item_id is not None and event.item_id not in self._known_items for event in events
        ):
            changed = changed._replace(
                window=msgspec.structs.replace(changed.window, unresolved=True)
            )
        held = partition.put(changed, generation)
        held.touched_ms = self._clock()
        # Almost never ahead: the broker's clock is behind a producer's.
        ids = {id_hash(event.event_id) for event in events} if ahead else set()
        ours = {hashed: ahead[hashed] for hashed in ids if hashed in ahead}
        held.note(ours, [event.event_id for event in events])

    def _is_of_a_forgotten(self, record: Any, partition: Partition) -> bool:
        """Tell whether a broken record came, by its key, from a person before they were forgotten.

        As a dead letter it would outlive the search for that person's letters.
        """
        if not partition.markers or not record.key:
            return False
        marker = partition.marker(self._pseudonym(record.key.decode(errors="replace")))
        arrived = arrived_ms(record, sent_on=record.topic == self._names.routed)
        return marker is not None and arrived <= marker.time_ms

    def _decode(self, record: Any, now_ms: int) -> Event:
        event = decode_event(record.value)
        check_not_ahead(
            event, record.timestamp if record.timestamp_type == _LOG_APPEND_TIME else now_ms
        )
        if record.key is not None and record.key != event.user_id.encode():
            raise InvalidEvent(
                "key_mismatch", f"key {record.key[:64]!r} is not user_id {event.user_id!r}"
            )
        subject_id = self._pseudonym(event.user_id)
        if subject_id != event.user_id:
            event = msgspec.structs.replace(event, user_id=subject_id)
        return event

    def _route(self, record: Any, event: Event, home: int) -> Record:
        """Send an event on to its subject's partition: another client hashes keys differently."""
        if record.topic == self._names.routed:
            raise InvalidEvent(
                "wrong_partition",
                f"partition {record.partition} of {record.topic}, expected {home}",
            )
        self._metrics.count(m.ROUTED)
        return Record(
            topic=self._names.routed,
            key=event.user_id.encode(),
            value=encode_event(event) if self._pseudonym.active else record.value,
            partition=home,
            headers=sent_on_headers(record, int(record.timestamp), bare=self._pseudonym.active),
        )
