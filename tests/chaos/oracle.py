"""What every window must be, computed from the produced log and nothing else.

Written as plainly as it can be, from ``docs/contracts.md`` and ``docs/design.md``; shares no code
with the product, and must not: a common mistake would agree with itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import xxhash

MAX_EVENTS: Final = 50
SPAN_MS: Final = 30 * 24 * 60 * 60 * 1000
#: Header of the harness on records that are meant to be dead letters.
MARK: Final = "chaos"
#: It breaks the contract; or it keeps it, and yet cannot be encoded.
POISON: Final = "poison"
TOXIC: Final = "toxic"

Event = dict[str, Any]


class Logged(NamedTuple):
    """One record as the broker gives it back; ``timestamp_ms`` is the broker's, or arrival."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def mark(self) -> str:
        """``poison``, ``toxic``, or nothing where the record is good."""
        return next((value.decode() for name, value in self.headers if name == MARK), "")

    @property
    def name(self) -> str:
        """Key that the dead letter of this record has."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def forgotten_ms(records: Iterable[Logged]) -> dict[str, int]:
    """Give the time of each user's last request to be forgotten, from the ``forget`` topic."""
    newest: dict[str, int] = {}
    for record in records:
        assert record.value is not None
        user = json.loads(record.value)["user_id"]
        newest[user] = max(record.timestamp_ms, newest.get(user, 0))
    return newest


def windows(records: Iterable[Logged], forgotten: Mapping[str, int]) -> dict[str, list[Event]]:
    """Give user → events of the window, oldest first; users without any are left out."""
    by_user: dict[str, dict[str, Event]] = {}
    for record in records:
        if record.mark:
            continue
        assert record.value is not None
        event: Event = json.loads(record.value)
        user = event["user_id"]
        if event["type"] == "impression":
            continue
        if user in forgotten and min(event["ts"], record.timestamp_ms) <= forgotten[user]:
            continue
        by_id = by_user.setdefault(user, {})
        held = by_id.get(event["event_id"])
        if held is None or event["ts"] > held["ts"]:
            by_id[event["event_id"]] = event
    found: dict[str, list[Event]] = {}
    for user, by_id in by_user.items():
        ordered = sorted(by_id.values(), key=lambda event: (event["ts"], hashed(event)))
        newest = ordered[-MAX_EVENTS:]
        oldest_ms = newest[-1]["ts"] - SPAN_MS
        found[user] = [event for event in newest if event["ts"] > oldest_ms]
    return found


def hashed(event: Event) -> str:
    """Give what a window keeps of an event's id: its XXH3-64, 16 hex digits."""
    return xxhash.xxh3_64_hexdigest(event["event_id"].encode())


def named(
    windows_: Mapping[str, Iterable[Event]], records: Iterable[Logged]
) -> dict[str, list[Event]]:
    """Give windows of a worker the event ids of the log for their hashes; all else stays."""
    names: dict[str, str] = {}
    for record in records:
        if record.mark != POISON:
            event = json.loads(record.value or b"")
            names[hashed(event)] = event["event_id"]
    found: dict[str, list[Event]] = {}
    for user, events in windows_.items():
        found[user] = []
        for event in events:
            rest = {key: value for key, value in event.items() if key != "id_hash"}
            event_id = names.get(event["id_hash"], f"unknown {event['id_hash']}")
            found[user].append({"event_id": event_id, **rest})
    return found


def items(records: Iterable[Logged]) -> list[dict[str, Any]]:
    """Give the catalogue: the last record of each item, without those that were removed."""
    latest: dict[bytes, bytes | None] = {}
    for record in records:
        assert record.key is not None
        latest[record.key] = record.value
    return [json.loads(value) for _, value in sorted(latest.items()) if value is not None]


def dead_letters(records: Iterable[Logged], forgotten: Mapping[str, int]) -> dict[str, str]:
    """Give the letters of broken records that must be there: key → user as the key says."""
    expected: dict[str, str] = {}
    for record in records:
        if record.mark != POISON:
            continue
        user = (record.key or b"").decode(errors="replace")
        if user in forgotten and record.timestamp_ms <= forgotten[user]:
            continue
        expected[record.name] = user
    return expected


def toxic_events(records: Iterable[Logged]) -> set[str]:
    """Give the ids of the valid events that cannot be encoded: each is one letter."""
    return {
        json.loads(record.value or b"")["event_id"] for record in records if record.mark == TOXIC
    }
