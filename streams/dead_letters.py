"""Dead letters: messages that break the contract, kept with the reason, to be re-driven.

The key of a letter is ``topic/partition/offset`` of its source record: reading a source again
replaces a letter by itself, and one letter can be removed from the compacted topic.

A letter that is re-driven travels with its key, its origin and its first error in headers of
``routed``, so that failing again replaces it and keeps where it came from. Whoever sends an
event to ``routed`` puts the time stamp of the source behind the producer's headers; what stands
behind that is ours, and only that is believed.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from interest.errors import CorruptRecord, InvalidEvent, WrongKey
from interest.event import Event, encode_event
from interest.ports import Sealer
from interest.sealing import Unsealed, is_sealed, place
from streams.letters import DeadLetter, Failure, Headers, Origin, letter_record
from streams.outbox import Record
from streams.routing import SOURCE_TIMESTAMP, arrived_ms
from streams.topics import BEHAVIOURS, DEAD_LETTERS, ROUTED

#: On re-driven records: the key of the letter, and where it came from (:class:`Origin`, JSON).
LETTER: Final = "dead-letter"
ORIGIN: Final = "dead-letter-origin"
UNSEALED: Final = Unsealed()
#: The offset of letters that no source record stands for.
NO_OFFSET: Final = -1
POISON: Final = "poison"


def dead_letter(
    topic: str, record: Any, error: InvalidEvent, now_ms: int, sealer: Sealer = UNSEALED
) -> Record:
    """Make the dead letter of a source record (aiokafka's ``ConsumerRecord``).

    A record of ``routed`` that was re-driven becomes a letter under the key it had before, its
    first error kept. One of another topic keeps the first error it tells, and no more: there a
    producer may have written it, and must not replace other letters.
    """
    failure = Failure.of(error, now_ms)
    headers, told = _told(record, sealer)
    if told is not None and record.topic.endswith(ROUTED):
        key, origin = told.key, told.origin
    else:
        origin = Origin(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=arrived_ms(record, sent_on=record.topic.endswith(ROUTED)),
            keyed=record.key is not None,
            first=failure if told is None else told.origin.first,
        )
        key = f"{origin.topic}/{origin.partition}/{origin.offset}"
    return letter_record(
        topic,
        DeadLetter(
            key=key,
            origin=origin,
            last=failure,
            value=record.value,
            original_key=record.key if origin.keyed else None,
            original_headers=headers,
            n_bytes=len(record.value or b""),
        ),
    )


def poison_letter(
    topic: str, event: Event, partition: int, error: Exception, now_ms: int
) -> Record:
    """Make the dead letter of an event in a window that no encode takes.

    There is no source record any more: the event is written as JSON again, as if it came from
    ``behaviours``, with the offset -1.

    Args:
        topic: the dead letters'.
        partition: the window's.
    """
    source = topic.removesuffix(DEAD_LETTERS) + BEHAVIOURS
    digest = hashlib.blake2b(digest_size=16)
    for part in (event.user_id.encode(), event.event_id.encode()):
        digest.update(len(part).to_bytes(2, "big") + part)
    failure = Failure.of(InvalidEvent(POISON, f"{type(error).__name__}: {error}"), now_ms)
    value = encode_event(event)
    return letter_record(
        topic,
        DeadLetter(
            key=f"{POISON}/{digest.hexdigest()}",
            origin=Origin(source, partition, NO_OFFSET, now_ms, keyed=True, first=failure),
            last=failure,
            value=value,
            original_key=event.user_id.encode(),
            original_headers=(),
            n_bytes=len(value),
        ),
    )


def redriven_headers(letter: DeadLetter, sealer: Sealer = UNSEALED) -> Headers:
    """Give the headers with which a letter goes back to work, the producer's own first."""
    origin = _origin_encoder.encode(letter.origin)
    return (
        *letter.original_headers,
        (SOURCE_TIMESTAMP, b"%d" % letter.origin.timestamp_ms),
        (LETTER, letter.key.encode()),
        (ORIGIN, sealer.seal(origin, place(ORIGIN, letter.key))),
    )


class _Told(msgspec.Struct, frozen=True):
    """What a re-drive says of the letter that a record was."""

    key: str
    origin: Origin


_origin_encoder = msgspec.json.Encoder()
_origin_decoder = msgspec.json.Decoder(Origin)


def _told(record: Any, sealer: Sealer) -> tuple[Headers, _Told | None]:
    """Split a record's headers: the producer's, and what a re-drive told behind them."""
    headers = tuple((name, value or b"") for name, value in record.headers)
    names = [name for name, _ in headers]
    if SOURCE_TIMESTAMP not in names:
        return headers, None
    ours = len(names) - 1 - names[::-1].index(SOURCE_TIMESTAMP)
    behind = dict(headers[ours + 1 :])
    if not {LETTER, ORIGIN} <= behind.keys():
        return headers, None
    try:
        key, raw = behind[LETTER].decode(), behind[ORIGIN]
        if is_sealed(raw):
            raw = sealer.open(raw, place(ORIGIN, key))
        told = _Told(key, _origin_decoder.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, CorruptRecord, WrongKey):
        return headers, None  # a producer's own header of that name
    return headers[:ours], told
