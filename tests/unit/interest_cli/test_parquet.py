"""Parquet files of events and items."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interest.errors import BadInput
from interest.event import Event
from interest.item import Item
from interest_cli.files import Contract, InvalidRecord, RecordFile, read_events, read_items

TS_MS = 1_700_000_000_123


def unexpected(record: InvalidRecord) -> None:
    pytest.fail(f"unexpected: {record}")


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def event_columns(ts: Any) -> dict[str, Any]:
    return {"event_id": ["1"], "user_id": ["u"], "type": ["view"], "item_id": ["i"], "ts": ts}


def refusal(path: Path, contract: Contract) -> str:
    with pytest.raises(BadInput) as caught:
        list(RecordFile(path, contract, pytest.fail))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "ts",
    [
        pa.array([TS_MS]),
        pa.array([datetime.fromtimestamp(TS_MS / 1000, UTC).isoformat()]),
        pa.array([TS_MS * 1000 + 456], pa.timestamp("us", tz="Europe/Paris")),
        pa.array([TS_MS * 1_000_000 + 456], pa.timestamp("ns", tz="UTC")),
    ],
    ids=["ms", "text", "us with zone", "ns with zone"],
)
def test_event_times_of_every_unit_are_read_as_ms(tmp_path: Path, ts: Any) -> None:
    file = RecordFile(write(tmp_path / "log", event_columns(ts)), Event, pytest.fail)
    (event,) = read_events(file, now_ms=TS_MS, on_invalid=unexpected)
    assert event.ts == TS_MS


@pytest.mark.parametrize(
    "ts",
    [
        pa.array([TS_MS], pa.timestamp("ms")),
        pa.array([date(2023, 11, 14)]),
    ],
    ids=["timestamp", "date"],
)
def test_a_time_without_zone_is_refused_rather_than_guessed(tmp_path: Path, ts: Any) -> None:
    path = write(tmp_path / "log", event_columns(ts))
    assert "without a time zone" in refusal(path, Event)


def test_nulls_and_nan_are_absent_fields_and_a_decimal_is_a_number(tmp_path: Path) -> None:
    path = write(
        tmp_path / "items",
        {
            "item_id": pa.array(["a", "b", "c"]).dictionary_encode(),
            "title": ["A", "B", "C"],
            "categories": [["x", "y"], None, []],
            "price": pa.array([Decimal("1.50"), None, Decimal("2.00")]),
            "brand": [None, "acme", None],
        },
    )
    items = list(read_items(RecordFile(path, Item, pytest.fail), on_invalid=unexpected))
    assert [item.price for item in items] == [1.5, None, 2.0]
    assert [item.brand for item in items] == [None, "acme", None]
    assert [item.categories for item in items] == [("x", "y"), (), ()]
    rated = event_columns([TS_MS]) | {"rating": [float("nan")]}
    file = RecordFile(write(tmp_path / "log", rated), Event, pytest.fail)
    (event,) = read_events(file, now_ms=TS_MS, on_invalid=unexpected)
    assert event.rating is None


def test_unknown_columns_give_one_warning_line(tmp_path: Path) -> None:
    path = write(tmp_path / "log", event_columns([TS_MS]) | {"colour": ["red"], "age": [3]})
    warnings: list[str] = []
    assert len(list(RecordFile(path, Event, warnings.append))) == 1
    assert warnings == [f"{path}: unknown event fields are ignored: age, colour"]


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "items", {"item_id": ["a"], "name": ["A"]})
    assert refusal(path, Item) == f"{path}: no column title; the columns are item_id, name"


def test_a_column_of_numbers_where_ids_belong_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "log", event_columns([TS_MS]) | {"user_id": [17]})
    assert "column user_id is int64, expected string" in refusal(path, Event)


def test_a_damaged_row_group_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    n = 20_000
    table = pa.table(
        {
            "item_id": [f"{i * 7919 % 1_000_003}" for i in range(n)],
            "title": [f"title {i * i}" for i in range(n)],
        }
    )
    path = tmp_path / "items"
    pq.write_table(table, path, row_group_size=5000, compression="zstd", use_dictionary=False)
    raw = bytearray(path.read_bytes())
    middle = len(raw) * 5 // 8
    raw[middle : middle + 4000] = bytes(4000)
    path.write_bytes(raw)
    assert "damaged Parquet after row" in refusal(path, Item)


def test_progress_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    file = RecordFile(write(tmp_path / "log", event_columns([TS_MS])), Event, pytest.fail)
    assert len(list(file)) == 1
    assert file.bytes_read == file.total_bytes
