"""Behaviour events as producers publish them: JSON on Kafka, key = ``user_id``.

One class is the contract, the validation and the in-memory form: a decoded :class:`Event` is
valid. JSON Schema for other languages is generated from it (``docs/contracts``).
"""

from __future__ import annotations

import enum
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from xxhash import xxh3_64_digest

from interest.errors import InvalidEvent
from interest.unreadable import unreadable_reason

MAX_ID_CHARS: Final = 256
MAX_TEXT_CHARS: Final = 65_536
#: 2000-01-01T00:00:00Z. An older time is a producer's bug (seconds for milliseconds, mostly).
MIN_TS_MS: Final = 946_684_800_000
#: The end of the year 9999: later times do not fit RFC 3339, nor later 64-bit arithmetic.
MAX_TS_MS: Final = 253_402_300_799_999
#: How far an event may lie ahead of the broker's clock: producers' clocks drift, but an event
#: of next year would expire everything else in its user's window.
MAX_AHEAD_MS: Final = 5 * 60 * 1000

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
Label = Annotated[str, Meta(max_length=MAX_ID_CHARS)]


class EventType(enum.StrEnum):
    """What the user did."""

    VIEW = "view"
    CLICK = "click"
    CART = "cart"
    FAVOURITE = "favourite"
    PURCHASE = "purchase"
    REVIEW = "review"
    SEARCH = "search"
    REMOVE = "remove"
    RETURN = "return"
    IMPRESSION = "impression"


#: The types by the code that windows store; append only.
TYPES: Final = (
    EventType.VIEW,
    EventType.CLICK,
    EventType.CART,
    EventType.FAVOURITE,
    EventType.PURCHASE,
    EventType.REVIEW,
    EventType.SEARCH,
    EventType.REMOVE,
    EventType.RETURN,
    EventType.IMPRESSION,
)
TYPE_CODES: Final = {type_: code for code, type_ in enumerate(TYPES)}


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One behaviour of one user.

    ``event_id`` is the idempotency key. ``item_id`` may be absent for a ``search`` only, whose
    ``text`` then stands for the item. An ``impression`` says what was shown (``request_id``,
    ``position``, ``model_id``, optional ``propensity``) and never enters a window; any other
    event may carry the ``request_id`` that led to it. Unknown fields are ignored, so that
    producers can move first.
    """

    event_id: Id
    user_id: Id
    type: EventType
    ts: Annotated[int, Meta(ge=MIN_TS_MS, le=MAX_TS_MS)]
    item_id: Id | None = None
    session_id: Label | None = None
    platform: Label | None = None
    domain: Label | None = None
    text: Annotated[str, Meta(max_length=MAX_TEXT_CHARS)] | None = None
    rating: Annotated[float, Meta(ge=0, le=5)] | None = None
    dwell_ms: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    request_id: Label | None = None
    position: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    model_id: Label | None = None
    propensity: Annotated[float, Meta(gt=0, le=1)] | None = None
    schema: Annotated[int, Meta(ge=1, le=2**31)] = 1


class _AnyTimeMs(int):
    """Unix time in ms; decoded from a JSON integer or from RFC 3339 text."""


class _AnyTimeEvent(Event, frozen=True, kw_only=True, gc=False):
    ts: _AnyTimeMs


#: What an event is called of which the id is not known any more, see :func:`id_hash`.
_BY_HASH: Final = "#"
_BY_HASH_CHARS: Final = 17


def id_hash(event_id: str) -> bytes:
    """Give the 8 bytes by which a window knows an event (XXH3-64, big-endian).

    The name that :func:`name_of` gives to a hash has that hash again.
    """
    if event_id[0] == _BY_HASH and len(event_id) == _BY_HASH_CHARS:
        with suppress(ValueError):
            known = bytes.fromhex(event_id[1:])
            if name_of(known) == event_id:  # fromhex also takes spaces and capitals
                return known
    return xxh3_64_digest(event_id.encode())


def name_of(hashed: bytes) -> str:
    """Name an event of which only the hash of its id is known."""
    return _BY_HASH + hashed.hex()


def parse_time_ms(value: Any) -> int:
    """Turn a JSON integer (Unix ms) or RFC 3339 text with an offset into Unix ms.

    Raises:
        ValueError: the text is no RFC 3339 time, or has no UTC offset, or the type is another.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("Expected Unix time in ms or RFC 3339 text")
    if isinstance(value, int):
        return value
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("RFC 3339 time without an offset; write ...Z or ...+01:00")
    # Integer arithmetic: a float of seconds loses milliseconds to rounding.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def _dec_hook(type_: type, value: Any) -> Any:
    if type_ is _AnyTimeMs:
        return _AnyTimeMs(parse_time_ms(value))
    raise NotImplementedError(type_)  # msgspec's protocol for an unknown custom type


_decoder = msgspec.json.Decoder(Event)
_any_time_decoder = msgspec.json.Decoder(_AnyTimeEvent, dec_hook=_dec_hook)
_encoder = msgspec.json.Encoder()


#: Decodes the usual event in one call. Of what it gives, searches and impressions still need
#: :func:`check_complete`; what it raises at may be valid all the same: ask :func:`decode_event`.
decode_usual = _decoder.decode
#: What :data:`decode_usual` raises.
UNUSUAL: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)


def decode_event(raw: bytes | None) -> Event:
    """Decode and validate one event; whatever comes back satisfies the contract.

    The time is only held against the year 2000 here; how far it may lie ahead depends on the
    record's own time stamp, see :func:`check_not_ahead`.

    Raises:
        InvalidEvent: with one of the reason codes ``null_value``, ``not_utf8``,
            ``malformed_json``, ``schema``, ``bad_time``, ``missing_item``,
            ``incomplete_impression``.
    """
    try:
        event = _decoder.decode(raw)  # type: ignore[arg-type]  # None is told from the rest below
    except UNUSUAL:
        # Valid still where the time is a text, which costs a call back into Python.
        event = _decode_any_time(raw)
    if event.item_id is None or event.type is EventType.IMPRESSION:
        check_complete(event)
    return event


def _decode_any_time(raw: bytes | None) -> Event:
    if raw is None:
        raise InvalidEvent("null_value", "the record has no value")
    try:
        event = _any_time_decoder.decode(raw)
    except msgspec.ValidationError as error:
        reason = "bad_time" if "`$.ts`" in str(error) else "schema"
        raise InvalidEvent(reason, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent(unreadable_reason(raw), str(error)) from error
    except RecursionError as error:
        raise InvalidEvent("malformed_json", "nested too deeply") from error
    if event.ts < MIN_TS_MS:
        raise InvalidEvent("bad_time", f"ts {event.ts} lies before the year 2000 (ms expected)")
    if event.ts > MAX_TS_MS:
        raise InvalidEvent("future_time", f"ts {event.ts} lies after the year 9999 (ms expected)")
    return Event(**{**msgspec.structs.asdict(event), "ts": int(event.ts)})


def check_complete(event: Event) -> None:
    """Refuse an event that lacks what its type needs.

    Raises:
        InvalidEvent: with reason ``missing_item`` or ``incomplete_impression``.
    """
    if event.item_id is None:
        if event.type is not EventType.SEARCH:
            raise InvalidEvent("missing_item", f"a {event.type.value} needs an item_id")
        if not event.text:
            raise InvalidEvent("missing_item", "a search needs text or an item_id")
    if event.type is EventType.IMPRESSION and (
        not event.request_id or event.position is None or not event.model_id
    ):
        raise InvalidEvent(
            "incomplete_impression", "an impression needs request_id, position and model_id"
        )


def check_not_ahead(event: Event, now_ms: int) -> None:
    """Refuse an event of the future.

    Args:
        now_ms: the broker's time stamp of the record where the topic has ``LogAppendTime``,
            else the worker's clock; Unix ms.

    Raises:
        InvalidEvent: with reason ``future_time``.
    """
    if event.ts > now_ms + MAX_AHEAD_MS:
        raise InvalidEvent(
            "future_time", f"ts {event.ts} lies {event.ts - now_ms} ms ahead of {now_ms}"
        )


def encode_event(event: Event) -> bytes:
    """Give the JSON bytes of an event, absent fields left out."""
    return _encoder.encode(event)


def event_json_schema() -> dict[str, Any]:
    """Generate the JSON Schema (draft 2020-12) of the event contract from the class."""
    schema = msgspec.json.schema(Event)
    schema["$defs"]["Event"]["properties"]["ts"] = {
        "anyOf": [
            {"type": "integer", "minimum": MIN_TS_MS, "maximum": MAX_TS_MS},
            {"type": "string", "format": "date-time"},
        ],
        "description": "Unix time in ms, or RFC 3339 text with an offset",
    }
    return schema
