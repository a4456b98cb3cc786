"""What publishing a file says about its records."""

from __future__ import annotations

from pathlib import Path

import pytest

from interest.errors import BadInput
from interest.event import Event
from interest_cli.files import RecordFile
from interest_cli.invalid_records import InvalidRecords
from streams.publish import outgoing_events

GOOD = '{"event_id":"%d","user_id":"u","item_id":"i","type":"click","ts":1700000000000}'


def published(path: Path, lines: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    path.write_text("\n".join(lines))
    invalid = InvalidRecords()
    file = RecordFile(path, Event, lambda line: None)
    n = len(list(outgoing_events(invalid.raws(file), invalid.note)))
    return n, capsys.readouterr().err + invalid.summary()


def test_a_file_of_another_kind_is_given_up_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInput, match="first 100 records are invalid"):
        published(tmp_path / "shop.csv", ["InvoiceNo,StockCode"] * 500, capsys)


def test_invalid_records_among_good_ones_are_named_by_line_and_go_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [GOOD % 0, *["{broken"] * 300, GOOD % 1]
    n, text = published(tmp_path / "log.jsonl", lines, capsys)
    assert n == 302
    assert "log.jsonl:2: malformed_json" in text
    assert text.count("malformed_json") == 5
    assert "300 of them invalid" in text
