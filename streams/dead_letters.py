"""Dead letters: messages that break the contract, kept with the reason, to be re-driven.

The value of a letter is the original value, byte for byte; everything else is in headers. Its
key is ``topic/partition/offset``: reading a source again replaces a letter by itself, and one
letter can be removed from the compacted topic.
"""

from __future__ import annotations

from typing import Any

from interest.errors import InvalidEvent
from streams.outbox import Record

_DETAIL_CHARS = 512


def dead_letter(topic: str, record: Any, error: InvalidEvent, now_ms: int) -> Record:
    """Make the dead letter of a source record (aiokafka's ``ConsumerRecord``).

    A missing value becomes an empty one with the header ``null-value``, since a null would
    delete the letter.
    """
    headers = [
        ("reason", error.reason.encode()),
        ("detail", error.detail[:_DETAIL_CHARS].encode(errors="replace")),
        ("topic", record.topic.encode()),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
        ("timestamp-ms", str(record.timestamp).encode()),
        ("time-ms", str(now_ms).encode()),
    ]
    if record.key is not None:
        headers.append(("key", record.key))
    if record.value is None:
        headers.append(("null-value", b"1"))
    headers.extend((f"original-{name}", value or b"") for name, value in record.headers)
    return Record(
        topic=topic,
        key=f"{record.topic}/{record.partition}/{record.offset}".encode(),
        value=record.value if record.value is not None else b"",
        headers=tuple(headers),
    )
