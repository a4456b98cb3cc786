"""The event contract: what is accepted, and which reason a refusal gives."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from interest.errors import InvalidEvent
from interest.event import (
    MAX_AHEAD_MS,
    Event,
    EventType,
    check_not_ahead,
    decode_event,
    encode_event,
    event_json_schema,
)

VALID: dict[str, Any] = {
    "event_id": "536365-1",
    "user_id": "17850",
    "item_id": "85123A",
    "type": "purchase",
    "ts": 1_291_191_960_000,
}


def raw(**changes: Any) -> bytes:
    fields = {**VALID, **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


def test_a_full_event_survives_a_round_trip() -> None:
    event = decode_event(
        raw(type="review", text="好看 and warm", rating=4.5, dwell_ms=1200, session_id="s",
            platform="web", domain="gifts", request_id="r", schema=1)
    )  # fmt: skip
    assert decode_event(encode_event(event)) == event


def test_unknown_fields_are_ignored_so_that_producers_can_move_first() -> None:
    assert decode_event(raw(colour="red", nested={"a": [1]})) == decode_event(raw())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2010-12-01T08:26:00Z", 1_291_191_960_000),
        ("2010-12-01T09:26:00+01:00", 1_291_191_960_000),
        ("2010-12-01T08:26:00.123Z", 1_291_191_960_123),
        ("2010-12-01T08:26:00.001999Z", 1_291_191_960_001),
    ],
)
def test_rfc_3339_times_become_unix_ms(text: str, expected: int) -> None:
    assert decode_event(raw(ts=text)).ts == expected


def test_a_search_needs_no_item_but_then_its_text() -> None:
    assert decode_event(raw(type="search", item_id=..., text="mug")).text == "mug"
    with pytest.raises(InvalidEvent, match="missing_item"):
        decode_event(raw(type="search", item_id=...))


def test_an_impression_says_what_was_shown() -> None:
    shown = decode_event(raw(type="impression", request_id="r", position=0, model_id="m"))
    assert shown.type is EventType.IMPRESSION
    with pytest.raises(InvalidEvent, match="incomplete_impression"):
        decode_event(raw(type="impression", request_id="r"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null_value"),
        (b"", "malformed_json"),
        (b"{broken", "malformed_json"),
        (b'{"event_id": NaN}', "malformed_json"),
        (b"[" * 100_000, "schema"),
        (b"[]", "schema"),
        (b'{"event_id":"\xff"}', "not_utf8"),
        (raw(event_id="\ud800"), "malformed_json"),
        (raw(type="wink"), "schema"),
        (raw(type=3), "schema"),
        (raw(user_id=""), "schema"),
        (raw(user_id=...), "schema"),
        (raw(event_id=7), "schema"),
        (raw(item_id="x" * 257), "schema"),
        (raw(item_id=...), "missing_item"),
        (raw(item_id=None), "missing_item"),
        (raw(ts="yesterday"), "bad_time"),
        (raw(ts="2010-12-01T08:26:00"), "bad_time"),
        (raw(ts=True), "bad_time"),
        (raw(ts=1.5), "bad_time"),
        (raw(ts=...), "schema"),
        (raw(ts=1_291_191_960), "bad_time"),
        (raw(ts="1999-12-31T23:59:59Z"), "bad_time"),
        (raw(ts=2**63), "future_time"),
        (raw(rating=-1), "schema"),
        (raw(rating=6), "schema"),
        (raw().replace(b"1291191960000", b'1291191960000, "rating": 1e999'), "schema"),
        (raw(dwell_ms=-1), "schema"),
        (raw(propensity=0), "schema"),
        (raw(text="x" * 65_537), "schema"),
    ],
)
def test_each_broken_event_has_its_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_event(value)
    assert caught.value.reason == reason


def test_an_id_of_256_characters_is_accepted() -> None:
    assert len(decode_event(raw(user_id="用" * 256)).user_id) == 256


def test_an_event_may_lie_five_minutes_ahead_and_no_further() -> None:
    event = decode_event(raw())
    check_not_ahead(event, event.ts - MAX_AHEAD_MS)
    with pytest.raises(InvalidEvent, match="future_time"):
        check_not_ahead(event, event.ts - MAX_AHEAD_MS - 1)


def test_the_json_schema_accepts_what_the_decoder_accepts() -> None:
    schema = Draft202012Validator(event_json_schema())
    for good in (raw(), raw(ts="2010-12-01T08:26:00Z"), raw(type="search", item_id=..., text="x")):
        schema.validate(json.loads(good))
        decode_event(good)
    for bad in (raw(type="wink"), raw(user_id=""), raw(rating=9), raw(ts=...)):
        assert list(schema.iter_errors(json.loads(bad)))


def test_every_field_of_an_event_is_documented_in_the_schema() -> None:
    properties = event_json_schema()["$defs"]["Event"]["properties"]
    assert set(properties) == {field.name for field in msgspec.structs.fields(Event)}
