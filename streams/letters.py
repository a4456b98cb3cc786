"""What a dead letter is, and the record it is kept as.

The value of the record is the original value, byte for byte; everything else is in headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from interest.errors import CorruptRecord, InvalidEvent
from interest.ports import Sealer
from interest.sealing import IN_THE_CLEAR
from streams.letter_sealing import open_letter
from streams.outbox import Record
from streams.topics import MAX_RECORD_BYTES

_ORIGINAL: Final = "original-"
_DETAIL_CHARS: Final = 512
#: Headers of the original that are kept at most; the value needs the room.
_HEADER_BYTES: Final = 64 * 1024
#: What the rest of a letter and of a record batch may take of a record.
_MARGIN_BYTES: Final = 16 * 1024

Headers = tuple[tuple[str, bytes], ...]


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Why a message was refused, and when (Unix ms)."""

    reason: str
    detail: str
    time_ms: int

    @classmethod
    def of(cls, error: InvalidEvent, now_ms: int) -> Failure:
        """Note an error; its sentence is cut to what a header should hold."""
        return cls(error.reason, error.detail[:_DETAIL_CHARS], now_ms)


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a message came from, and why it was refused at first.

    ``offset`` is -1 where the worker itself made the message of an event in a window.
    ``keyed`` says that the source record had a key.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    keyed: bool
    first: Failure


class DeadLetter(msgspec.Struct, frozen=True):
    """A letter as it is kept.

    ``value`` is None where the source record had none. ``n_bytes`` is the length of the
    original value: more than ``value`` has where that had to be cut.
    """

    key: str
    origin: Origin
    last: Failure
    value: bytes | None
    original_key: bytes | None
    original_headers: Headers
    n_bytes: int

    @property
    def is_cut(self) -> bool:
        """True where the original was larger than a record may be: it cannot be re-driven."""
        return self.value is not None and len(self.value) < self.n_bytes


def letter_record(topic: str, letter: DeadLetter, partition: int | None = None) -> Record:
    """Make the record of a letter; what is too large for one is cut, and says so.

    A missing value becomes an empty one with the header ``null-value``, since a null would
    delete the letter.

    Args:
        partition: where the letter lies already; None to let its key decide.
    """
    origin, first, last = letter.origin, letter.origin.first, letter.last
    headers = [
        ("reason", last.reason.encode()),
        ("detail", _utf8(last.detail)),
        ("time-ms", b"%d" % last.time_ms),
        ("first-reason", first.reason.encode()),
        ("first-detail", _utf8(first.detail)),
        ("first-time-ms", b"%d" % first.time_ms),
        ("topic", origin.topic.encode()),
        ("partition", b"%d" % origin.partition),
        ("offset", b"%d" % origin.offset),
        ("timestamp-ms", b"%d" % origin.timestamp_ms),
    ]
    if letter.original_key is not None:
        headers.append(("key", letter.original_key))
    if letter.value is None:
        headers.append(("null-value", b"1"))
    kept, n_kept_bytes = _within(letter.original_headers, _HEADER_BYTES)
    if len(kept) < len(letter.original_headers):
        headers.append(("headers-dropped", b"%d" % (len(letter.original_headers) - len(kept))))
    headers.extend((_ORIGINAL + name, value) for name, value in kept)
    value = letter.value or b""
    room = MAX_RECORD_BYTES - _MARGIN_BYTES - n_kept_bytes - len(letter.original_key or b"")
    if len(value) > max(room, 0):
        value = value[: max(room, 0)]
    if len(value) < letter.n_bytes:
        headers.append(("value-bytes", b"%d" % letter.n_bytes))
    return Record(
        topic=topic,
        key=letter.key.encode(),
        value=value,
        partition=partition,
        headers=tuple(headers),
    )


def read_letter(record: Any, sealer: Sealer = IN_THE_CLEAR) -> DeadLetter:
    """Read a letter back (aiokafka's ``ConsumerRecord``); also those of earlier versions.

    Raises:
        CorruptRecord: it is none of ours, or was changed.
        WrongKey: it is encrypted with a key that is not there.
    """
    sealed_headers, value = open_letter(record, sealer)
    # Some brokers give back nothing for an empty header.
    all_headers = [(name, text or b"") for name, text in sealed_headers]
    headers = dict(all_headers)
    try:
        last = Failure(
            headers["reason"].decode(),
            headers["detail"].decode(),
            int(headers["time-ms"]),
        )
        first = Failure(
            headers.get("first-reason", headers["reason"]).decode(),
            headers.get("first-detail", headers["detail"]).decode(),
            int(headers.get("first-time-ms", headers["time-ms"])),
        )
        origin = Origin(
            topic=headers["topic"].decode(),
            partition=int(headers["partition"]),
            offset=int(headers["offset"]),
            timestamp_ms=int(headers["timestamp-ms"]),
            keyed="key" in headers,
            first=first,
        )
        return DeadLetter(
            key=record.key.decode(),
            origin=origin,
            last=last,
            value=None if "null-value" in headers else value,
            original_key=headers.get("key"),
            original_headers=tuple(
                (name.removeprefix(_ORIGINAL), value)
                for name, value in all_headers
                if name.startswith(_ORIGINAL)
            ),
            n_bytes=int(headers.get("value-bytes", len(value))),
        )
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CorruptRecord(
            f"{record.topic}/{record.partition}/{record.offset} is no dead letter: {error!r}"
        ) from error


def _within(headers: Sequence[tuple[str, bytes]], n_bytes: int) -> tuple[Headers, int]:
    """Give the headers that fit into so many bytes, in their order, and what they take."""
    kept: list[tuple[str, bytes]] = []
    used = 0
    for name, value in headers:
        size = len(name.encode(errors="replace")) + len(value) + 16
        if used + size <= n_bytes:
            kept.append((name, value))
            used += size
    return tuple(kept), used


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")
