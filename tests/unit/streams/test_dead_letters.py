"""Letters: what they keep, what a re-drive tells, and who is in them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interest.errors import CorruptRecord, InvalidEvent
from interest.event import decode_event
from interest.settings import Settings
from streams.dead_letter_desk import carries
from streams.dead_letters import (
    LETTER,
    ORIGIN,
    dead_letter,
    poison_letter,
    redriven_headers,
)
from streams.letters import DeadLetter, Failure, Origin, letter_record, read_letter
from streams.outbox import Record
from streams.routing import SOURCE_TIMESTAMP
from streams.topics import MAX_RECORD_BYTES, TopicNames
from tests.unit.streams.fakes import T0, KafkaRecord, event_json

NAMES = TopicNames.of(Settings(topic_prefix="p-"))
FIRST = InvalidEvent("schema", "the first error")
AGAIN = InvalidEvent("future_time", "the second error")


def lying(record: Record) -> KafkaRecord:
    """Give a record as a consumer sees it."""
    return KafkaRecord(record.topic, 0, 0, record.key, record.value, headers=record.headers)


def buried(record: KafkaRecord, error: InvalidEvent = FIRST, now_ms: int = T0 + 1) -> DeadLetter:
    return read_letter(lying(dead_letter(NAMES.dead_letters, record, error, now_ms)))


def source(topic: str = NAMES.behaviours, **fields: Any) -> KafkaRecord:
    values: dict[str, Any] = {"key": b"u", "value": b"{", "timestamp": T0, **fields}
    return KafkaRecord(topic, 3, 17, **values)


def redriven(letter: DeadLetter, topic: str = NAMES.routed, **fields: Any) -> KafkaRecord:
    headers = redriven_headers(letter)
    return KafkaRecord(topic, 1, 99, b"u", letter.value, T0 + 500, headers=headers)


def test_a_letter_keeps_value_key_headers_and_place_of_its_source() -> None:
    letter = buried(source(headers=(("trace", b"1"), ("trace", b"2"), ("reason", b"mine"))))
    assert letter.key == "p-behaviours/3/17"
    assert letter.value == b"{"
    assert letter.original_key == b"u"
    assert letter.original_headers == (("trace", b"1"), ("trace", b"2"), ("reason", b"mine"))
    assert letter.last == letter.origin.first == Failure("schema", "the first error", T0 + 1)
    assert (letter.origin.partition, letter.origin.offset) == (3, 17)
    assert letter.origin.timestamp_ms == T0


def test_a_missing_value_is_told_from_an_empty_one() -> None:
    assert buried(source(value=None)).value is None
    assert buried(source(value=b"")).value == b""
    assert dead_letter(NAMES.dead_letters, source(value=None), FIRST, T0).value == b""


def test_a_re_driven_event_that_fails_again_keeps_its_key_and_first_error() -> None:
    letter = buried(source(headers=(("trace", b"1"),)))
    again = buried(redriven(letter), AGAIN, T0 + 600)
    assert again == msgspec.structs.replace(letter, last=Failure.of(AGAIN, T0 + 600))


def test_a_key_that_was_missing_is_missing_again_after_a_re_drive() -> None:
    letter = buried(source(key=None))
    assert buried(redriven(letter), AGAIN).original_key is None


@pytest.mark.parametrize("topic", [NAMES.behaviours, NAMES.catalogue])
def test_headers_that_a_producer_forged_replace_no_letter(topic: str) -> None:
    victim = buried(source())
    forged = buried(redriven(victim, topic), AGAIN, T0 + 600)
    assert forged.key == f"{topic}/1/99"
    assert (forged.origin.topic, forged.origin.offset) == (topic, 99)
    assert forged.origin.first == victim.last  # told, believed, and without consequence


def test_headers_that_were_forged_on_behaviours_do_not_pass_routed() -> None:
    """The worker copies a producer's headers to ``routed`` and puts its own time stamp last."""
    forged = (*redriven_headers(buried(source())), (SOURCE_TIMESTAMP, b"%d" % T0))
    letter = buried(KafkaRecord(NAMES.routed, 1, 99, b"u", b"{", headers=forged), AGAIN)
    assert letter.key == "p-routed/1/99"
    assert letter.origin.first.reason == "future_time"
    assert letter.original_headers == forged


@pytest.mark.parametrize("origin", [b"", b"{}", b"\xff", b"[1]", b'{"topic": 1}'])
def test_a_damaged_origin_is_not_believed(origin: bytes) -> None:
    headers = ((SOURCE_TIMESTAMP, b"1"), (LETTER, b"k"), (ORIGIN, origin))
    letter = buried(KafkaRecord(NAMES.routed, 1, 99, b"u", b"{", headers=headers))
    assert letter.key == "p-routed/1/99"


def test_a_routed_event_keeps_the_time_of_its_source_record() -> None:
    headers = ((SOURCE_TIMESTAMP, b"%d" % (T0 - 5)),)
    assert buried(source(NAMES.routed, headers=headers)).origin.timestamp_ms == T0 - 5


def test_what_is_too_large_for_a_record_is_cut_and_says_so() -> None:
    value = b"x" * (MAX_RECORD_BYTES + 1)
    record = dead_letter(
        NAMES.dead_letters, source(value=value, headers=(("h", b"y" * 200_000),)), FIRST, T0
    )
    size = len(record.key or b"") + len(record.value or b"")
    size += sum(len(name) + len(header) for name, header in record.headers)
    assert size < MAX_RECORD_BYTES
    letter = read_letter(lying(record))
    assert letter.is_cut
    assert letter.n_bytes == len(value)
    assert letter.value == value[: len(letter.value or b"")]
    assert ("headers-dropped", b"1") in record.headers
    # Written again, it still knows.
    assert read_letter(lying(letter_record("t", letter))) == letter


def test_letters_of_an_earlier_version_can_be_read() -> None:
    record = dead_letter(NAMES.dead_letters, source(), FIRST, T0)
    old = tuple(header for header in record.headers if not header[0].startswith("first-"))
    letter = read_letter(lying(msgspec.structs.replace(record, headers=old)))
    assert letter.origin.first == letter.last


@pytest.mark.parametrize("missing", ["reason", "topic", "offset", "timestamp-ms"])
def test_what_is_no_letter_is_refused(missing: str) -> None:
    record = dead_letter(NAMES.dead_letters, source(), FIRST, T0)
    rest = tuple(header for header in record.headers if header[0] != missing)
    with pytest.raises(CorruptRecord, match="no dead letter"):
        read_letter(lying(msgspec.structs.replace(record, headers=rest)))


def test_a_poison_letter_holds_the_event_under_a_key_of_its_own() -> None:
    event = decode_event(event_json("e", "u", text="boom"))
    record = poison_letter(NAMES.dead_letters, event, 3, RuntimeError("device"), T0 + 1)
    letter = read_letter(lying(record))
    assert decode_event(letter.value) == event
    assert letter.key.startswith("poison/")
    assert "u" not in letter.key.removeprefix("poison/")
    assert letter.origin.topic == NAMES.behaviours
    assert letter.origin.offset == -1
    assert letter.last == Failure("poison", "RuntimeError: device", T0 + 1)
    again = poison_letter(NAMES.dead_letters, event, 4, RuntimeError("other"), T0 + 2)
    assert again.key == record.key
    other = decode_event(event_json("eu", "v"))
    assert poison_letter(NAMES.dead_letters, other, 3, RuntimeError(), T0).key != record.key


_times = st.integers(min_value=-(2**62), max_value=2**62)
_names = st.text(st.characters(codec="utf-8"), max_size=20)
_failures = st.builds(Failure, reason=_names, detail=_names, time_ms=_times)
_origins = st.builds(
    Origin, topic=_names, partition=st.integers(0, 99), offset=st.integers(-1, 2**60),
    timestamp_ms=_times, keyed=st.booleans(), first=_failures,
)  # fmt: skip


@given(
    key=_names, origin=_origins, last=_failures, value=st.none() | st.binary(max_size=50),
    headers=st.lists(st.tuples(_names, st.binary(max_size=9)), max_size=4).map(tuple),
    original_key=st.binary(max_size=9),
)  # fmt: skip
def test_every_letter_comes_back_as_it_was(
    key: str, origin: Origin, last: Failure, value: bytes | None, headers: Any, original_key: bytes
) -> None:
    letter = DeadLetter(
        key=key, origin=origin, last=last, value=value,
        original_key=original_key if origin.keyed else None, original_headers=headers,
        n_bytes=len(value or b""),
    )  # fmt: skip
    assert read_letter(lying(letter_record("t", letter))) == letter


@pytest.mark.parametrize(
    ("record", "user_id", "found"),
    [
        (source(value=event_json("e", "ann"), key=None), "ann", True),
        (source(value=event_json("e", "ann"), key=None), "an", False),
        (source(value=event_json("e", "ann-1"), key=None), "ann", False),
        (source(value=event_json("e", "bob", ts=17), key=None), "17", False),
        (source(value=b'{"user_id": 17}', key=None), "17", True),
        (source(value=b'{"user": {"id": ["ann"]}}', key=None), "ann", True),
        (source(value=b'{"user_id": "ann", "type', key=None), "ann", True),
        (source(value=b'{"user_id": "annabel", "type', key=None), "ann", False),
        (source(value=b'\xff\x00ann\x00', key=None), "ann", True),
        (source(value="{\"user_id\": \"zoë\"".encode(), key=None), "zoë", True),
        (source(value=b'{"user_id": "zo\\u00eb"', key=None), "zoë", True),
        (source(value=b'{"user_id": "zo\\u00eb"}', key=None), "zoë", True),
        (source(value=b"{", key=b"ann"), "ann", True),
        (source(value=None, key=b"ann"), "ann", True),
        (source(value=b"{", key=b"bob"), "ann", False),
        (source(value=b"{", key=None, headers=(("user", b"ann"),)), "ann", True),
        (source(value=b"[" * 5_000, key=None), "ann", False),
    ],
)  # fmt: skip
def test_the_letters_of_a_person_are_found(record: KafkaRecord, user_id: str, found: bool) -> None:
    assert carries(buried(record), user_id) is found
