"""Online Retail to events and items."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from interest.errors import BadInput
from interest.event import Event
from interest.item import Item
from interest_cli.convert import SAMPLE_FOLDER, Conversion, convert_online_retail, write_sample
from interest_cli.files import InvalidRecord, RecordFile, read_events, read_items

RETAIL = Path(__file__).parents[4] / "shared/data/online_retail/online_retail.csv.gz"
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
NOW_MS = 1_700_000_000_000


def unexpected(record: InvalidRecord) -> None:
    pytest.fail(f"unexpected: {record}")


def convert(tmp_path: Path, *rows: str) -> tuple[Conversion, list[Event], list[Item]]:
    source = tmp_path / "retail.csv"
    source.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
    conversion = convert_online_retail(source, tmp_path / "out")
    return conversion, *read_back(conversion.events_path, conversion.items_path)


def read_back(events_path: Path, items_path: Path) -> tuple[list[Event], list[Item]]:
    """Read with the decoders of the live path; whatever is invalid fails the test."""
    log = RecordFile(events_path, Event, pytest.fail)
    catalogue = RecordFile(items_path, Item, pytest.fail)
    return (
        list(read_events(log, now_ms=NOW_MS, on_invalid=unexpected)),
        list(read_items(catalogue, on_invalid=unexpected)),
    )


def test_a_line_is_a_purchase_and_a_line_of_a_cancellation_a_return(tmp_path: Path) -> None:
    _, events, _ = convert(
        tmp_path,
        "536365,85123A,T-LIGHT HOLDER,6,2010-12-01 08:26:00,2.55,17850,United Kingdom",
        "C536379,85123A,T-LIGHT HOLDER,-1,2010-12-01 09:41:00,2.55,17850,United Kingdom",
    )
    first, second = events
    assert (first.event_id, first.type, first.user_id) == ("536365-0001", "purchase", "17850")
    assert first.item_id == "85123A"
    assert first.ts == 1_291_191_960_000  # 2010-12-01T08:26:00Z
    assert first.session_id == "536365"
    assert (second.event_id, second.type) == ("C536379-0001", "return")


def test_the_line_number_counts_dropped_lines_and_survives_interleaved_invoices(
    tmp_path: Path,
) -> None:
    _, events, _ = convert(
        tmp_path,
        "1,POST,POSTAGE,1,2011-01-01 10:00:00,18,9,France",
        "1,10001,A,1,2011-01-01 10:00:00,1,9,France",
        "2,10002,B,1,2011-01-01 10:00:00,1,9,France",
        "1,10003,C,1,2011-01-01 10:01:00,1,9,France",
    )
    assert [event.event_id for event in events] == ["1-0002", "2-0001", "1-0003"]


def test_what_nobody_chose_is_dropped_and_counted(tmp_path: Path) -> None:
    conversion, events, _ = convert(
        tmp_path,
        "1,10001,A,1,2011-01-01 10:00:00,1,9,France",
        "1,10001,A,1,2011-01-01 10:00:00,1,,France",
        "1,POST,POSTAGE,1,2011-01-01 10:00:00,18,9,France",
        "1,M,Manual,1,2011-01-01 10:00:00,18,9,France",
        "1,23444,Next Day Carriage,1,2011-01-01 10:00:00,15,9,France",
        "1,10001,A,1,2011-01-01 10:00:00,0,9,France",
        "1,10001,A,-4,2011-01-01 10:00:00,1,9,France",
        "1,10001,A,1,yesterday,1,9,France",
        "1,10001,A,many,2011-01-01 10:00:00,1,9,France",
    )
    assert len(events) == 1
    assert conversion.dropped == {
        "malformed": 2, "no_customer": 1, "no_product": 3, "no_quantity": 1, "not_paid": 1,
    }  # fmt: skip
    assert conversion.n_lines == 9


def test_the_most_frequent_description_wins_and_a_tie_does_not_depend_on_order(
    tmp_path: Path,
) -> None:
    rows = [
        f"{i},{code},{text},1,2011-01-01 10:00:00,{price},9,France"
        for i, (code, text, price) in enumerate(
            [("10001", "OLD NAME", 1), ("10001", "NEW  NAME", 2), ("10001", "NEW NAME", 2),
             ("10002", "B", 4), ("10002", "A", 3)]
        )
    ]  # fmt: skip
    _, _, items = convert(tmp_path, *rows)
    assert [(item.title, item.price) for item in items] == [("NEW NAME", 2), ("A", 3)]
    _, _, reversed_items = convert(tmp_path, *reversed(rows))
    assert reversed_items == items


def test_events_are_sorted_by_time_and_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = (
        "2,10001,A,1,2011-01-02 10:00:00,1,9,France",
        "1,10001,A,1,1/1/2011 10:00,1,8,France",
    )
    conversion, events, _ = convert(tmp_path, *rows)
    assert [event.event_id for event in events] == ["1-0001", "2-0001"]
    before = conversion.events_path.read_bytes(), conversion.items_path.read_bytes()
    conversion, _, _ = convert(tmp_path, *rows)
    assert (conversion.events_path.read_bytes(), conversion.items_path.read_bytes()) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a,b\n1,2\n", "no Online Retail CSV: no column InvoiceNo"),
        (b"", "no Online Retail CSV"),
        (gzip.compress(HEADER.encode() + b"\n" * 99, mtime=0)[:40], "truncated or damaged gzip"),
        (HEADER.encode() + b"\n1,10001,CAF\xc9,1,2011-01-01 10:00:00,1,9,France\n", "not UTF-8"),
    ],
)
def test_a_wrong_file_gives_one_clear_line(tmp_path: Path, content: bytes, says: str) -> None:
    source = tmp_path / "retail.csv"
    source.write_bytes(content)
    with pytest.raises(BadInput, match=says) as caught:
        convert_online_retail(source, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_place_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: No such file"):
        convert_online_retail(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "taken").write_text("a file where the folder should be")
    source = tmp_path / "retail.csv"
    source.write_text(HEADER + "\n")
    with pytest.raises(BadInput, match="cannot write"):
        convert_online_retail(source, tmp_path / "taken")


def test_the_sample_is_valid_sorted_complete_and_small() -> None:
    events, items = read_back(SAMPLE_FOLDER / "events.jsonl.gz", SAMPLE_FOLDER / "items.jsonl.gz")
    assert len(events) >= 20_000
    assert len({event.event_id for event in events}) == len(events)
    assert events == sorted(events, key=lambda event: (event.ts, event.event_id))
    assert {event.item_id for event in events} == {item.item_id for item in items}
    assert {"purchase", "return"} == {event.type.value for event in events}
    assert sum(path.stat().st_size for path in SAMPLE_FOLDER.iterdir()) <= 4_000_000


def test_the_sample_names_its_source_and_licence() -> None:
    notice = (SAMPLE_FOLDER / "NOTICE").read_text(encoding="utf-8")
    for must in ("Chen, D.", "10.24432/C5BW33", "CC BY 4.0", "Changes:"):
        assert must in notice


@pytest.mark.skipif(not RETAIL.exists(), reason=f"the data set is not at {RETAIL}")
def test_the_sample_is_what_the_data_set_gives(tmp_path: Path) -> None:
    conversion = write_sample(RETAIL, tmp_path)
    assert conversion.n_lines == 541_909
    assert conversion.n_events + sum(conversion.dropped.values()) == conversion.n_lines
    for path in (conversion.events_path, conversion.items_path):
        shipped = (SAMPLE_FOLDER / path.name).read_bytes()
        # Packed bytes may differ between builds of zlib.
        assert gzip.decompress(path.read_bytes()) == gzip.decompress(shipped)
