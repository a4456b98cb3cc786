"""A seeded generator of messages that break the contract in every way we could think of.

Each comes with the reasons under which it may be refused; none of them is valid.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from tests.stream.conftest import T0

#: Reasons that bytes of no particular form may be refused under.
NO_JSON: Final = frozenset({"malformed_json", "not_utf8", "schema"})
_FAR_MS: Final = 4_102_444_800_000  # the year 2100


class Malformed(NamedTuple):
    """A record that must become a dead letter."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    reasons: frozenset[str]


Kind = Callable[[random.Random, dict[str, Any]], tuple[bytes | None, set[str]]]


def _dump(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode(errors="surrogatepass")


def _garbage(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    return b"\xfe" + rng.randbytes(rng.randrange(1, 400)), set(NO_JSON)


def _truncated(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    raw = _dump(event)
    # Cut within a character, too.
    return raw[: rng.randrange(1, len(raw))], {"malformed_json", "not_utf8"}


def _trailing(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    return _dump(event) + rng.choice([b"x", b"{}", b",", b"\x00"]), {"malformed_json"}


def _bad_utf8(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    field = rng.choice(["event_id", "user_id", "item_id"])
    raw = _dump({**event, field: "@@"})
    return raw.replace(b"@@", rng.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82"])), {
        "not_utf8", "malformed_json",
    }  # fmt: skip


def _wrong_type(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    field = rng.choice([*event, "rating", "dwell_ms", "text", "position"])
    wrong: Any = rng.choice([None, True, [], {}, [[]], {"a": 1}])
    if field in ("rating", "dwell_ms", "text", "position") and wrong is None:
        wrong = {}
    # A null stands for an absent item, and then the event lacks one.
    return _dump({**event, field: wrong}), {"schema", "bad_time", "missing_item"}


def _missing(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    field = rng.choice(list(event))
    return _dump({k: v for k, v in event.items() if k != field}), {"schema", "missing_item"}


def _nested(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    depth = rng.choice([100, 2_000, 50_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    inner = opening * depth + b"1" + closing * depth
    where = rng.choice([b"%b", b'{"user_id": %b}', b'{"ts": %b}'])
    return where % inner, {"schema", "malformed_json", "bad_time"}


def _huge_number(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    field = rng.choice(["ts", "rating", "dwell_ms"])
    number = rng.choice(["9" * 400, "1e400", "-1e999", "1e-999999", "0" * 99, "1.5", "-7", "2e18"])
    raw = _dump({**event, field: "@@"}).replace(b'"@@"', number.encode())
    valid = field == "rating" and number in ("1.5", "1e-999999")
    return (raw, {"schema", "bad_time", "malformed_json", "future_time"}) if not valid else (
        raw[:-1], {"malformed_json"},
    )  # fmt: skip


def _not_a_number(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    word = rng.choice([b"NaN", b"Infinity", b"-Infinity", b"undefined", b"True", b"None"])
    field = rng.choice(["ts", "rating", "user_id"])
    return _dump({**event, field: "@@"}).replace(b'"@@"', word), {"malformed_json"}


def _other_key(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    return _dump(event), {"key_mismatch"}


def _null(rng: random.Random, event: dict[str, Any]) -> tuple[None, set[str]]:
    return None, {"null_value"}


def _empty(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    return rng.choice([b" ", b"\n", b"null", b'""', b"0", b"[]", b"\x00", b"\xef\xbb\xbf{}"]), {
        *NO_JSON, "null_value",
    }  # fmt: skip


def _ancient(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    ts = rng.choice([0, -1, T0 // 1000, "0001-01-01T00:00:00Z", "1970-01-01T00:00:00+00:00"])
    return _dump({**event, "ts": ts}), {"bad_time"}


def _future(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    ts = rng.choice([_FAR_MS, 2**62, "9999-12-31T23:59:59Z", 253_402_300_800_000])
    return _dump({**event, "ts": ts}), {"future_time"}


def _bad_time(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    ts = rng.choice(["", "yesterday", "2023-11-14", "2023-11-14T22:13:20", "2023-13-45T99:99:99Z"])
    return _dump({**event, "ts": ts}), {"bad_time"}


def _long(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    field = rng.choice(["event_id", "user_id", "item_id", "session_id"])
    return _dump({**event, field: "x" * rng.choice([257, 5_000, 200_000])}), {"schema"}


def _wrong_enum(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    return _dump({**event, "type": rng.choice(["", "CLICK", "buy", "click "])}), {"schema"}


def _repeated(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    """The last of two fields of one name counts, and it is the wrong one."""
    return _dump(event)[:-1] + b', "user_id": 5}', {"schema"}


def _impression(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    return _dump({**event, "type": "impression", "position": 1}), {"incomplete_impression"}


def _utf16(rng: random.Random, event: dict[str, Any]) -> tuple[bytes, set[str]]:
    return json.dumps(event).encode("utf-16"), set(NO_JSON)


KINDS: Final[tuple[Kind, ...]] = (
    _garbage, _truncated, _trailing, _bad_utf8, _wrong_type, _missing, _nested, _huge_number,
    _not_a_number, _other_key, _null, _empty, _ancient, _future, _bad_time, _long, _wrong_enum,
    _repeated, _impression, _utf16,
)  # fmt: skip
#: Large ones are rare, or a million of them would be a benchmark of the broker's memory.
_RARE: Final[dict[Kind, float]] = {_nested: 0.02, _long: 0.1}


def malformed(seed: int, n: int) -> Iterator[Malformed]:
    """Generate ``n`` records; the same for the same seed."""
    rng = random.Random(seed)
    weights = [_RARE.get(kind, 1.0) for kind in KINDS]
    for i, kind in enumerate(rng.choices(KINDS, weights, k=n)):
        user = f"user-{rng.randrange(1_000)}"
        event = {
            "event_id": f"bad-{seed}-{i}", "user_id": user, "type": "click", "ts": T0 + i,
            "item_id": "mug",
        }  # fmt: skip
        value, reasons = kind(rng, event)
        keys = [None, user.encode()]
        if kind is _other_key:
            keys = [b"\xff\xfe", b"somebody else"]
        elif value is None:
            keys = [user.encode()]  # no producer sends neither key nor value
        headers = ((rng.choice(["trace", "reason", "dead-letter"]), rng.randbytes(8)),)
        yield Malformed(rng.choice(keys), value, headers if i % 3 == 0 else (), frozenset(reasons))
