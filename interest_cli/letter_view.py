"""How a dead letter is shown: anybody may have written what is in it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.dead_letter_desk import Lying


def facts(lying: Lying) -> dict[str, Any]:
    """Give all of a letter as JSON can hold it: text, or base64 where the bytes are none."""
    letter, origin = lying.letter, lying.letter.origin
    known: dict[str, Any] = {
        "key": lying.ref.key,
        "reason": letter.last.reason,
        "detail": letter.last.detail,
        "time": shown_time(letter.last.time_ms),
        "first_reason": origin.first.reason,
        "first_detail": origin.first.detail,
        "first_time": shown_time(origin.first.time_ms),
        "topic": origin.topic,
        "partition": origin.partition,
        "offset": origin.offset,
        "timestamp": shown_time(origin.timestamp_ms),
        **as_text("original_key", letter.original_key),
        "headers": [as_text(name, value) for name, value in letter.original_headers],
    }
    if letter.is_cut:
        known["original_bytes"] = letter.n_bytes
    return {**known, **as_text("value", letter.value)}


def as_text(name: str, value: bytes | None) -> dict[str, str | None]:
    """Give bytes under their name as text; as base64 under another where they are none."""
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def shown_time(ms: int) -> str:
    """Give a time, Unix ms, for a person."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"  # a producer's time stamp may be anything


def one_line(value: Any) -> str:
    """Give what stands in one line, whatever it holds."""
    return printable(" ".join(str(value).split()))


def printable(text: str) -> str:
    """Escape what a terminal would obey: anybody may have written a letter."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text
    )
