"""What an agent does with a chunk of events: decode, sort by user, mark dirty. Nothing more.

Folding and encoding are for whoever wants the window or the vector, so a slow encoder never stalls
the intake, and overload coalesces: many events of a user are folded, encoded and written once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from interest import metrics as m
from interest.clock import Clock
from interest.errors import InvalidEvent
from interest.event import (
    UNUSUAL,
    Event,
    EventType,
    check_not_ahead,
    decode_event,
    decode_usual,
    encode_event,
    id_hash,
)
from interest.partition import partition_of
from interest.ports import Metrics, Sealer
from interest.pseudonyms import Pseudonyms
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
_SLICE: Final = 1_024
_LOG_APPEND_TIME: Final = 1
#: Users of whom it is remembered where they are at home, in all and by partition.
_AT_HOME: Final = 200_000
_PLAIN: Final = 50_000
_IMPRESSION: Final = EventType.IMPRESSION


class _Slice:
    """What comes of some records beside the events that enter windows."""

    def __init__(self, partition: Partition, now_ms: int) -> None:
        self.partition = partition
        self.now_ms = now_ms
        self.outgoing: list[Record] = []
        #: Arrival of events whose own time lies after it.
        self.ahead: dict[bytes, int] = {}
        #: Types of the events that are counted and go no further.
        self.shown: list[EventType] = []
        self.n_dropped = 0
        #: The last event that was admitted, and when it arrived.
        self.event: Event
        self.arrived = 0


class Ingest:
    """Takes chunks of ``behaviours`` and ``routed`` into the windows of this worker."""

    def __init__(
        self,
        *,
        names: TopicNames,
        n_partitions: int,
        windows: WindowStore,
        dirty: DirtyUsers,
        progress: Progress,
        outbox: Outbox,
        max_uncommitted: int,
        pseudonym: Pseudonyms,
        sealer: Sealer,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._names = names
        self._windows = windows
        self._dirty = dirty
        self._progress = progress
        self._outbox = outbox
        self._max_uncommitted = max_uncommitted
        self._pseudonym = pseudonym
        self._sealer = sealer
        self._clock = clock
        self._metrics = metrics
        # Hashing a key in Python costs more than decoding its event; users come back.
        self._home = lru_cache(maxsize=_AT_HOME)(lambda user: partition_of(user, n_partitions))

    async def handle(self, chunk: Chunk) -> None:
        """Take a chunk; when it returns, what left for other topics is acknowledged."""
        if not self._progress.take(chunk):
            return
        partition = self._windows.partition(chunk.tp.partition)
        for first in range(0, len(chunk.records), _SLICE):
            # A sink that is away holds the commit, and this holds the intake.
            await self._progress.room(self._max_uncommitted, chunk.generation)
            if chunk.lap != self._progress.lap:
                return
            records = chunk.records[first : first + _SLICE]
            outgoing = self._read(partition, records, chunk.generation)
            if outgoing:
                await self._outbox.send_all(outgoing)
            else:
                await asyncio.sleep(0)
            # Only now: the checkpoint may commit this position at any moment.
            if not self._progress.advanced(chunk.tp, records[-1].offset + 1, chunk.lap):
                return

    def _read(self, partition: Partition, records: Sequence[Any], generation: int) -> list[Record]:
        """Hand the events of some records to their partition; give what goes to other topics.

        Every event of a worker passes here: what can be done once for all of them is.
        """
        now_ms, plain, types = self._clock(), partition.plain, list[EventType]()
        unfolded, decode = partition.unfolded, decode_usual
        since_ms: dict[str, int] = {}
        impression = _IMPRESSION
        slice_ = _Slice(partition, now_ms)
        if records[0].topic == self._names.routed:
            plain = {}
        for record in records:
            try:
                event = decode(record.value)
                user_id = plain.get(record.key, "")
                arrived, type_ = record.timestamp, event.type
                usual = (
                    user_id == event.user_id
                    and arrived >= event.ts <= now_ms
                    and event.item_id is not None
                    and type_ is not impression
                )
            except UNUSUAL:
                usual = False
            if not usual:
                try:
                    if not self._admit(record, slice_):
                        continue
                except InvalidEvent as error:
                    self._bury(record, error, slice_)
                    continue
                event, arrived = slice_.event, slice_.arrived
                user_id, type_ = event.user_id, event.type
            types.append(type_)
            if user_id in since_ms:
                unfolded[user_id].append(event)
            else:
                since_ms[user_id] = arrived
                waiting = unfolded.get(user_id)
                if waiting is None:
                    unfolded[user_id] = [event]
                else:
                    waiting.append(event)
        partition.reads(generation, now_ms, slice_.ahead)
        mark, number = self._dirty.mark, partition.number
        for user_id, since in since_ms.items():
            # Also where nothing changes: the vector that contains the event may not have been
            # stored before the crash that makes us read it again.
            mark(user_id, number, since)
        for event_type, n in Counter(types + slice_.shown).items():
            self._metrics.count(m.EVENTS, n, event_type.value)
        if slice_.n_dropped:
            self._metrics.count(m.DROPPED, slice_.n_dropped)
        return slice_.outgoing

    def _admit(self, record: Any, slice_: _Slice) -> bool:
        """Look closer at a record; tell whether it enters the window of a user of this partition.

        Raises:
            InvalidEvent: it breaks the contract.
        """
        partition, now_ms = slice_.partition, slice_.now_ms
        event = decode_event(record.value)
        check_not_ahead(
            event, record.timestamp if record.timestamp_type == _LOG_APPEND_TIME else now_ms
        )
        user_id = event.user_id
        if record.key is not None and record.key != user_id.encode():
            raise InvalidEvent(
                "key_mismatch", f"key {record.key[:64]!r} is not user_id {user_id!r}"
            )
        subject_id = self._pseudonym(user_id)
        if subject_id != user_id:
            event = msgspec.structs.replace(event, user_id=subject_id)
        number = self._home(subject_id)
        if number != partition.number:
            slice_.outgoing.append(self._route(record, event, number))
            return False
        if event.type is _IMPRESSION:
            slice_.shown.append(event.type)
            return False
        arrived = arrived_ms(record, sent_on=record.topic == self._names.routed)
        marker = partition.marker(subject_id)
        if marker is not None:
            if is_forgotten(event.ts, arrived, marker):
                slice_.shown.append(event.type)
                slice_.n_dropped += 1
                return False
        elif record.key is not None and subject_id == user_id:
            if len(partition.plain) >= _PLAIN:
                partition.plain.clear()
            partition.plain[record.key] = subject_id
        if event.ts > arrived:
            slice_.ahead[id_hash(event.event_id)] = arrived
        slice_.event, slice_.arrived = event, arrived
        return True

    def _bury(self, record: Any, error: InvalidEvent, slice_: _Slice) -> None:
        if self._is_of_a_forgotten(record, slice_.partition):
            slice_.n_dropped += 1
            return
        self._metrics.count(m.DEAD_LETTERS, 1, error.reason)
        letter = dead_letter(self._names.dead_letters, record, error, slice_.now_ms, self._sealer)
        slice_.outgoing.append(letter)

    def _is_of_a_forgotten(self, record: Any, partition: Partition) -> bool:
        """Tell whether a broken record came, by its key, from a person before they were forgotten.

        As a dead letter it would outlive the search for that person's letters.
        """
        if not partition.markers or not record.key:
            return False
        marker = partition.marker(self._pseudonym(record.key.decode(errors="replace")))
        arrived = arrived_ms(record, sent_on=record.topic == self._names.routed)
        return marker is not None and arrived <= marker.time_ms

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
