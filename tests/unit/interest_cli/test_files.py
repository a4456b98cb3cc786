"""Files of records: formats, damage, warnings, progress."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from interest.errors import BadInput
from interest.event import Event
from interest.item import Item
from interest_cli.files import InvalidRecord, Record, RecordFile, read_events, read_items

GOOD = b'{"event_id":"%d","user_id":"u","type":"view","ts":1700000000000,"item_id":"i"}'
NOW_MS = 1_700_000_000_000


def lines(n: int) -> list[bytes]:
    return [GOOD % i for i in range(n)]


def records(path: Path | str, warnings: list[str] | None = None) -> list[Record]:
    warn = (warnings if warnings is not None else []).append
    return list(RecordFile(path, Event, warn))


def read_until_error(path: Path) -> tuple[list[Record], str]:
    """Give the records before the error, and its one line."""
    found: list[Record] = []
    with pytest.raises(BadInput) as caught:
        found.extend(RecordFile(path, Event, pytest.fail))  # extend keeps what came before
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return found, text


PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip in two members": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    "gzip padded with zeros": lambda data: gzip.compress(data) + bytes(512),
    "zstd": lambda data: zstandard.compress(data),
    "zstd in two frames": lambda data: (
        zstandard.compress(data[:99]) + zstandard.compress(data[99:])
    ),
}


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK.keys())
def test_the_format_is_told_by_content_whatever_the_name(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "log.misleading.parquet"
    path.write_bytes(pack(b"\n".join(lines(2000)) + b"\n"))
    assert records(path) == [Record(i, raw) for i, raw in enumerate(lines(2000), start=1)]


def test_a_byte_order_mark_blank_lines_and_a_missing_last_newline_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\r\n" + lines(1)[0] + b"\r\n\n  \n" + lines(1)[0])
    assert [record.line for record in records(path)] == [2, 5]


def test_standard_input_is_a_file_called_minus(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO(gzip.compress(b"\n".join(lines(3))))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    file = RecordFile("-", Event, pytest.fail)
    assert file.total_bytes is None
    assert len(list(file)) == 3


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_truncated_file_gives_its_good_lines_and_then_an_error(tmp_path: Path, kind: str) -> None:
    whole = PACK[kind](b"\n".join(GOOD % (i * i * 7919) for i in range(50_000)))
    path = tmp_path / "log"
    path.write_bytes(whole[: len(whole) // 2])
    found, text = read_until_error(path)
    assert found[0].raw == GOOD % 0
    assert len(found) > 1000
    assert f"{kind} is truncated" in text
    assert f"after line {found[-1].line}" in text


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_file_cut_in_its_very_header_is_truncated_too(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(PACK[kind](lines(1)[0])[:5])
    assert "truncated" in read_until_error(path)[1]


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_damaged_file_gives_an_error(tmp_path: Path, kind: str) -> None:
    whole = bytearray(PACK[kind](b"\n".join(GOOD % (i * i * 7919) for i in range(50_000))))
    whole[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    path = tmp_path / "log"
    path.write_bytes(whole)
    with pytest.raises(BadInput, match=f"{kind} is (damaged|truncated)"):
        records(path)


def test_a_missing_file_and_a_folder_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere: No such file"):
        RecordFile(tmp_path / "nowhere", Event, pytest.fail)
    with pytest.raises(BadInput, match="is a folder"):
        RecordFile(tmp_path, Event, pytest.fail)


def test_a_file_that_goes_away_before_it_is_read_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines(1)[0])
    file = RecordFile(path, Event, pytest.fail)
    path.unlink()
    with pytest.raises(BadInput, match="No such file"):
        list(file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04\x14\x00\x00\x00", "neither JSON Lines"),
        ('{"event_id":"1"}'.encode("utf-16"), "UTF-16"),
        (b"[\n" + lines(1)[0] + b"\n]", "JSON array"),
        (b"PAR1 and then nothing of Parquet", "damaged Parquet"),
    ],
)
def test_a_file_of_another_kind_is_named_and_so_is_the_way_out(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    assert says in read_until_error(path)[1]


def test_a_line_without_end_is_an_error_and_not_a_full_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interest_cli.files.MAX_LINE_BYTES", 100_000)
    path = tmp_path / "log"
    path.write_bytes(lines(1)[0] + b"\n" + b"x" * 400_000)
    found, text = read_until_error(path)
    assert len(found) == 1
    assert "no end of line" in text


def test_unknown_fields_give_one_warning_line_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    extra = b'{"zeta":1,"event_id":"a"}\n{"alpha":2}\n' * 1500
    path.write_bytes(extra)
    warnings: list[str] = []
    records(path, warnings)
    assert warnings == [f"{path}: unknown event fields are ignored: alpha, zeta"]


def test_an_empty_file_gives_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    warnings: list[str] = []
    assert records(path, warnings) == []
    assert warnings == [f"{path} holds no records"]


def test_progress_counts_bytes_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(gzip.compress(b"\n".join(GOOD % (i * i * 7919) for i in range(50_000))))
    file = RecordFile(path, Event, pytest.fail)
    seen = [file.bytes_read for _ in file]
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1]
    assert file.bytes_read == file.total_bytes == path.stat().st_size


def test_bad_events_are_reported_with_line_and_reason_and_reading_goes_on(tmp_path: Path) -> None:
    bad = [
        b"not json",
        GOOD.replace(b"%d", b"\xff"),
        b'{"event_id":"1","user_id":"u","type":"teleport","ts":1700000000000,"item_id":"i"}',
        b'{"event_id":"1","user_id":"u","type":"view","ts":1700000400001,"item_id":"i"}',
        b'{"event_id":"1","user_id":"u","type":"view","ts":12,"item_id":"i"}',
        b"null",
    ]
    path = tmp_path / "log"
    path.write_bytes(b"\n".join([GOOD % 0, *bad, GOOD % 1]))
    invalid: list[InvalidRecord] = []
    file = RecordFile(path, Event, pytest.fail)
    events = list(read_events(file, now_ms=NOW_MS, on_invalid=invalid.append))
    assert [event.event_id for event in events] == ["0", "1"]
    assert [(record.line, record.reason) for record in invalid] == [
        (2, "malformed_json"), (3, "not_utf8"), (4, "schema"), (5, "future_time"),
        (6, "bad_time"), (7, "schema"),
    ]  # fmt: skip
    assert [record.raw for record in invalid] == bad


def test_an_item_without_title_is_reported_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "items"
    path.write_bytes(b'{"item_id":"a"}\n{"item_id":"b","title":"B"}\n')
    invalid: list[InvalidRecord] = []
    file = RecordFile(path, Item, pytest.fail)
    items = list(read_items(file, on_invalid=invalid.append))
    assert [item.item_id for item in items] == ["b"]
    assert [(record.line, record.reason) for record in invalid] == [(1, "missing_title")]
