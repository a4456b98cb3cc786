"""One record with a header name that is no UTF-8 must not stop a partition."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from streams.lenient_records import LenientRecords

Row = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
Rows = list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]


def batch(
    *rows: tuple[bytes | None, bytes | None, list[tuple[str, bytes]]], codec: int = 0
) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for i, (key, value, headers) in enumerate(rows):
        builder.append(i, 1_000 + i, key, value, headers)
    return bytes(builder.build())


def read(records: Any) -> Rows:
    found: Rows = []
    while records.has_next():
        found += [(r.offset, r.key, r.value, list(r.headers)) for r in records.next_batch()]
    return found


PLAIN = batch((b"k", b"v", [("trace", b"1")]), (None, b"w" * 9_000, []), (b"k", None, [("x", b"")]))


def test_what_is_fine_is_read_as_aiokafka_reads_it() -> None:
    compressed = batch((b"k", b"v" * 500, [("trace", b"1")]), codec=1)
    both = PLAIN + compressed
    assert read(LenientRecords(both)) == read(MemoryRecords(both))
    first = LenientRecords(PLAIN).next_batch()
    assert first.validate_crc()
    assert (first.base_offset, first.next_offset, first.is_control_batch) == (0, 3, False)


def test_a_name_that_is_no_utf8_is_escaped_and_its_neighbours_are_read() -> None:
    raw = batch(
        (b"k", b"before", [("trace", b"1")]),
        (b"k", b"v" * 300, [("ok", b"1"), ("abcdef", b"x" * 200), ("abcdef", b"")]),
        (b"k", None, [("abcdef", b"z")]),
        (None, b"after", []),
    ).replace(b"abcdef", b"a\xff\xfe\xc3(z")
    with pytest.raises(UnicodeDecodeError):
        read(MemoryRecords(raw))
    name = "a\\xff\\xfe\\xc3(z"
    assert read(LenientRecords(raw + PLAIN)) == [
        (0, b"k", b"before", [("trace", b"1")]),
        (1, b"k", b"v" * 300, [("ok", b"1"), (name, b"x" * 200), (name, b"")]),
        (2, b"k", None, [(name, b"z")]),
        (3, None, b"after", []),
        *read(MemoryRecords(PLAIN)),
    ]


def test_a_fetch_that_ends_within_a_batch_gives_the_whole_ones() -> None:
    records = LenientRecords(PLAIN + PLAIN[:-5])
    assert len(read(records)) == 3
    assert not records.has_next()
