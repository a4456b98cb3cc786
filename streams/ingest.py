"""What an agent does with a chunk of events: decode, fold, mark the users dirty. Nothing more.

Encoding is a task of its own, so a slow encoder never stalls the intake, and overload coalesces.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from interest import metrics as m
from interest.clock import Clock
from interest.errors import InvalidEvent
from interest.event import Event, check_not_ahead, decode_event
from interest.partition import partition_of
from interest.ports import Metrics
from interest.window import WindowLimits, enters_window, fold
from streams.dead_letters import dead_letter
from streams.dirty import DirtyUsers
from streams.outbox import Outbox, Record
from streams.progress import Progress
from streams.topics import TopicNames
from streams.transport import Chunk
from streams.windows import Partition, WindowStore

#: Records handled in one go; between two goes the loop serves encoder, heartbeats and probes.
_SLICE: Final = 256
_LOG_APPEND_TIME: Final = 1
#: On records of ``routed``: the broker's time stamp of the source record, Unix ms.
SOURCE_TIMESTAMP: Final = "source-timestamp-ms"
_MILLIS: Final = re.compile(rb"[0-9]{1,15}")


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
                self._metrics.count(m.DEAD_LETTERS, 1, error.reason)
                outgoing.append(dead_letter(self._names.dead_letters, record, error, now_ms))
                continue
            by_type[event.type.value] += 1
            if enters_window(event):
                by_subject[event.user_id].append(event)
                since_ms.setdefault(event.user_id, self._arrived_ms(record))
        for subject_id, events in by_subject.items():
            self._fold_subject(partition, subject_id, events, generation)
            # Also where nothing changed: the vector that contains the event may not have been
            # stored before the crash that makes us read it again.
            self._dirty.mark(subject_id, partition.number, since_ms[subject_id])
        for event_type, n in by_type.items():
            self._metrics.count(m.EVENTS, n, event_type)
        return outgoing

    def _fold_subject(
        self, partition: Partition, subject_id: str, events: list[Event], generation: int
    ) -> None:
        window = partition.window(subject_id)
        folded = fold(window, events, self._limits)
        if folded is window:
            return
        if not folded.unresolved and any(
            event.item_id is not None and event.item_id not in self._known_items for event in events
        ):
            folded = msgspec.structs.replace(folded, unresolved=True)
        partition.replace(folded, generation)

    def _decode(self, record: Any, now_ms: int) -> Event:
        event = decode_event(record.value)
        check_not_ahead(
            event, record.timestamp if record.timestamp_type == _LOG_APPEND_TIME else now_ms
        )
        if record.key is not None and record.key != event.user_id.encode():
            raise InvalidEvent(
                "key_mismatch", f"key {record.key[:64]!r} is not user_id {event.user_id!r}"
            )
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
            value=record.value,
            partition=home,
            headers=(
                *((name, value or b"") for name, value in record.headers),
                (SOURCE_TIMESTAMP, str(record.timestamp).encode()),
            ),
        )

    def _arrived_ms(self, record: Any) -> int:
        """Give the broker's time stamp of the source record, also behind ``routed``; Unix ms."""
        if record.topic == self._names.routed:
            # Ours is the last header of the name; on other topics a producer may have written it.
            for name, value in reversed(record.headers):
                if name == SOURCE_TIMESTAMP and value is not None and _MILLIS.fullmatch(value):
                    return int(value)
        return int(record.timestamp)
