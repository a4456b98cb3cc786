"""Behaviour events as producers publish them: JSON on Kafka, key = ``user_id``.

One class is the contract, the validation and the in-memory form: a decoded :class:`Event` is
valid. JSON Schema for other languages is generated from it (``docs/contracts``).
"""

from __future__ import annotations

import enum
import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from interest.errors import InvalidEvent

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


class EventTimeMs(int):
    """Unix time in ms; decoded from a JSON integer or from RFC 3339 text."""


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
    ts: EventTimeMs
    item_id: Id | None = None
    text: Annotated[str, Meta(max_length=MAX_TEXT_CHARS)] | None = None
    rating: Annotated[float, Meta(ge=0, le=5)] | None = None
    dwell_ms: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    session_id: Label | None = None
    platform: Label | None = None
    domain: Label | None = None
    request_id: Label | None = None
    position: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    model_id: Label | None = None
    propensity: Annotated[float, Meta(gt=0, le=1)] | None = None
    schema: Annotated[int, Meta(ge=1, le=2**31)] = 1

    @property
    def order(self) -> tuple[int, str]:
        """The event's place in its user's window: event time, ties by event id."""
        return (self.ts, self.event_id)


def parse_time_ms(value: Any) -> EventTimeMs:
    """Turn a JSON integer (Unix ms) or RFC 3339 text with an offset into Unix ms.

    Raises:
        ValueError: the text is no RFC 3339 time, or has no UTC offset, or the type is another.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("Expected Unix time in ms or RFC 3339 text")
    if isinstance(value, int):
        return EventTimeMs(value)
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("RFC 3339 time without an offset; write ...Z or ...+01:00")
    # Integer arithmetic: a float of seconds loses milliseconds to rounding.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return EventTimeMs((since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000)


def _dec_hook(type_: type, value: Any) -> Any:
    if type_ is EventTimeMs:
        return parse_time_ms(value)
    raise NotImplementedError(type_)  # msgspec's protocol for an unknown custom type


def _enc_hook(value: Any) -> Any:
    if isinstance(value, EventTimeMs):
        return int(value)
    raise NotImplementedError(type(value))


_decoder = msgspec.json.Decoder(Event, dec_hook=_dec_hook)
_encoder = msgspec.json.Encoder(enc_hook=_enc_hook)


def decode_event(raw: bytes | None) -> Event:
    """Decode and validate one event; whatever comes back satisfies the contract.

    The time is only held against the year 2000 here; how far it may lie ahead depends on the
    record's own time stamp, see :func:`check_not_ahead`.

    Raises:
        InvalidEvent: with one of the reason codes ``null_value``, ``not_utf8``,
            ``malformed_json``, ``schema``, ``bad_time``, ``missing_item``,
            ``incomplete_impression``.
    """
    if raw is None:
        raise InvalidEvent("null_value", "the record has no value")
    try:
        event = _decoder.decode(raw)
    except UnicodeDecodeError as error:
        raise InvalidEvent("not_utf8", str(error)) from error
    except msgspec.ValidationError as error:
        reason = "bad_time" if "`$.ts`" in str(error) else "schema"
        raise InvalidEvent(reason, str(error)) from error
    except msgspec.DecodeError as error:
        raise InvalidEvent("malformed_json", str(error)) from error
    except RecursionError as error:
        raise InvalidEvent("malformed_json", "nested too deeply") from error
    if event.ts < MIN_TS_MS:
        raise InvalidEvent("bad_time", f"ts {event.ts} lies before the year 2000 (ms expected)")
    if event.ts > MAX_TS_MS:
        raise InvalidEvent("future_time", f"ts {event.ts} lies after the year 9999 (ms expected)")
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
    return event


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


def event_digest(event: Event) -> bytes:
    """Digest 16 bytes of the content: decides between two contents under one event id."""
    return hashlib.blake2b(_encoder.encode(event), digest_size=16).digest()


def event_json_schema() -> dict[str, Any]:
    """Generate the JSON Schema (draft 2020-12) of the event contract from the class."""

    def schema_hook(type_: type) -> dict[str, Any]:
        if type_ is EventTimeMs:
            return {
                "anyOf": [
                    {"type": "integer", "minimum": MIN_TS_MS, "maximum": MAX_TS_MS},
                    {"type": "string", "format": "date-time"},
                ],
                "description": "Unix time in ms, or RFC 3339 text with an offset",
            }
        raise NotImplementedError(type_)

    return msgspec.json.schema(Event, schema_hook=schema_hook)
