"""Event and item files: JSON Lines (plain, gzip or zstd) and Parquet, as streams of records.

A record is the raw JSON of one event or item, exactly as it would be published to Kafka, so a
bad record is judged by the same decoder offline and live. What is wrong with one record is that
record's business (:class:`InvalidRecord`, the offline dead letter); what is wrong with the file
(missing, truncated, damaged, of another format) is a :class:`~interest.errors.BadInput` that
comes after the good records before it.
"""

from __future__ import annotations

import itertools
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from interest.errors import BadInput, InvalidEvent
from interest.event import Event, check_not_ahead, decode_event
from interest.item import Item, decode_item
from interest_cli.packing import unpack

#: A record longer than this is no record: Kafka refuses far smaller ones.
MAX_LINE_BYTES: Final = 16 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024
#: Unknown field names are looked for in so many records of a file: one warning, small cost.
_SNIFFED_RECORDS: Final = 1000

#: The two contracts a file can hold.
Contract = type[Event] | type[Item]
Warn = Callable[[str], None]


class Record(NamedTuple):
    """The raw JSON of one record; ``line`` counts from 1 (in Parquet: the row)."""

    line: int
    raw: bytes


class InvalidRecord(NamedTuple):
    """A record that breaks its contract: the offline form of a dead letter."""

    path: str
    line: int
    reason: str
    detail: str
    raw: bytes


class RecordFile:
    """One file of records; iterate it once, and poll ``bytes_read`` for a progress bar.

    The format is told by the content, never by the name; ``-`` reads standard input.

    Args:
        contract: the class of the records, for required columns and unknown fields.
        warn: takes one line about the whole file (unknown fields, no records at all).

    Raises:
        BadInput: here where the file cannot be opened, while iterating where it is damaged.
    """

    def __init__(self, path: str | Path, contract: Contract, warn: Warn) -> None:
        self.path = str(path)
        self.bytes_read = 0
        self._contract = contract
        self._warn = warn
        #: Size on disk, compressed; None where it is not known (standard input).
        self.total_bytes: int | None = None
        if self.path != "-":
            self.total_bytes = _size(Path(path))

    def __iter__(self) -> Iterator[Record]:
        n_records = 0
        names: set[str] = set()
        for record in self._opened():
            n_records += 1
            if n_records <= _SNIFFED_RECORDS:
                names |= _field_names(record.raw)
                if n_records == _SNIFFED_RECORDS:
                    self._warn_unknown(names)
            yield record
        if n_records < _SNIFFED_RECORDS:
            self._warn_unknown(names)
        if not n_records:
            self._warn(f"{self.path} holds no records")

    def _opened(self) -> Iterator[Record]:
        try:
            yield from self._records()
        except OSError as error:  # it was there a moment ago, or its disk fails
            raise BadInput(f"{self.path}: {error.strerror or error}") from error

    def _records(self) -> Iterator[Record]:
        self.bytes_read = 0
        with ExitStack() as stack:
            source: BinaryIO = (
                sys.stdin.buffer
                if self.path == "-"
                else stack.enter_context(Path(self.path).open("rb"))
            )
            first = source.read(_CHUNK_BYTES)
            if first.startswith(b"PAR1"):
                if self.path == "-":
                    raise BadInput("Parquet cannot be read from standard input; name the file")
                yield from self._rows()
                return
            chunks = self._counted(itertools.chain([first], _rest(source)))
            yield from _lines(unpack(chunks, first), self.path)

    def _rows(self) -> Iterator[Record]:
        # pyarrow is heavy to import, and most files are JSON Lines.
        from interest_cli.parquet import ParquetRecords

        rows = ParquetRecords(self.path, self._contract)
        self._warn_unknown(rows.names)
        for row, raw in enumerate(rows, start=1):
            self.bytes_read = int((self.total_bytes or 0) * row / rows.n_rows)
            yield Record(row, raw)

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.bytes_read += len(chunk)
            yield chunk

    def _warn_unknown(self, names: Iterable[str]) -> None:
        unknown = sorted(set(names) - set(self._contract.__struct_encode_fields__))
        if unknown:
            what = self._contract.__name__.lower()
            self._warn(f"{self.path}: unknown {what} fields are ignored: {', '.join(unknown)}")


def read_events(
    file: RecordFile, *, now_ms: int, on_invalid: Callable[[InvalidRecord], None]
) -> Iterator[Event]:
    """Decode the events of a file with the checks of the live path.

    Args:
        now_ms: an event further ahead of it than producers' clocks drift is invalid; Unix ms.
        on_invalid: takes each record that would be a dead letter; reading goes on.
    """
    for line, raw in file:
        try:
            event = decode_event(raw)
            check_not_ahead(event, now_ms)
        except InvalidEvent as error:
            on_invalid(InvalidRecord(file.path, line, error.reason, error.detail, raw))
        else:
            yield event


def read_items(file: RecordFile, *, on_invalid: Callable[[InvalidRecord], None]) -> Iterator[Item]:
    """Decode the items of a file; ``on_invalid`` takes each that breaks the contract."""
    for line, raw in file:
        try:
            item = decode_item(raw)
        except InvalidEvent as error:
            on_invalid(InvalidRecord(file.path, line, error.reason, error.detail, raw))
        else:
            yield item


def _rest(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk


def _lines(chunks: Iterable[bytes], path: str) -> Iterator[Record]:
    """Cut bytes into records, one a line; blank lines are passed over but counted."""
    number = 0
    tail = b""
    started = False
    try:
        for chunk in chunks:
            block = tail + chunk
            if not started:
                block = block.removeprefix(b"\xef\xbb\xbf")
                _check_is_json_lines(block)
                started = bool(block.strip())
            *whole, tail = block.split(b"\n")
            for line in whole:
                number += 1
                if raw := line.strip():
                    yield Record(number, raw)
            if len(tail) > MAX_LINE_BYTES:
                raise BadInput(f"no end of line in {MAX_LINE_BYTES} bytes; write one object a line")
    except BadInput as error:
        raise BadInput(f"{path}: {error} (after line {number})") from error
    if raw := tail.strip():
        yield Record(number + 1, raw)


def _check_is_json_lines(start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput("UTF-16 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    if b"\0" in start[:1024]:
        raise BadInput("neither JSON Lines, gzip, zstd nor Parquet")
    if start.lstrip().startswith(b"["):
        raise BadInput("a JSON array; write one object a line (jq -c '.[]')")


def _size(path: Path) -> int | None:
    try:
        info = path.stat()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error
    if stat.S_ISDIR(info.st_mode):
        raise BadInput(f"{path} is a folder; name a file in it")
    if not os.access(path, os.R_OK):
        raise BadInput(f"{path}: permission denied")
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def _field_names(raw: bytes) -> set[str]:
    try:
        return set(_names.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()  # an invalid record is reported by its decoder


_names: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
