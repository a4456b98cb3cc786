"""Records as a fetch brings them, made as cheaply as Python makes objects.

aiokafka builds a record of eleven fields in Python, which costs more than decoding the event in it.
Of these eight are used here. Process-wide, like :mod:`streams.lenient_records`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from aiokafka.consumer import fetcher


class FetchedRecord(msgspec.Struct, gc=False):
    """What we use of aiokafka's ``ConsumerRecord``."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class FetchedRecords(fetcher.PartitionRecords):  # type: ignore[misc,unused-ignore]
    """The records of one partition in one fetch."""

    def __iter__(self) -> Iterator[Any]:
        # Not itself: that is a call in Python for each record, on the way to the same iterator.
        iterator: Iterator[Any] = self._records_iterator
        return iterator

    def _consumer_record(self, tp: Any, record: Any) -> FetchedRecord:
        return FetchedRecord(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp,
            record.timestamp_type,
            record.key,
            record.value,
            tuple(record.headers),
        )


def install() -> None:
    """Have every consumer of this process make such records; again changes nothing."""
    fetcher.PartitionRecords = FetchedRecords
