"""CSV of public data sets in, JSON Lines out: what all conversions share."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from interest.errors import BadInput

_Value = TypeVar("_Value", str, float)


def read_csv(path: Path, columns: Sequence[str], kind: str) -> Iterator[dict[str, str]]:
    """Give the rows of a CSV with a header, plain or gzip, by column.

    Args:
        columns: those that must be there.
        kind: what the file should be, for the error.

    Raises:
        BadInput: the file is missing, no such CSV, not UTF-8, or a truncated gzip.
    """
    number = 0
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        opened = gzip.open if zipped else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise BadInput(f"{path} is no {kind} CSV: no column {', '.join(missing)}")
            for row in reader:
                number = reader.line_num
                yield row
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(
            f"{path}: truncated or damaged gzip after line {number}; fetch the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: not UTF-8 after line {number}; convert it (iconv -f LATIN1 -t UTF-8)"
        ) from error
    except csv.Error as error:
        raise BadInput(f"{path}: no CSV after line {number} ({error})") from error
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error


def write_log(out_dir: Path, events: Iterable[bytes], items: Iterable[bytes]) -> tuple[Path, Path]:
    """Write ``events.jsonl.gz`` and ``items.jsonl.gz``; the same lines give the same bytes.

    Raises:
        BadInput: ``out_dir`` cannot be written.
    """
    paths = out_dir / "events.jsonl.gz", out_dir / "items.jsonl.gz"
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for path, lines in zip(paths, (events, items), strict=True):
            # No time stamp and no file name in the header: they would make the bytes differ.
            with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
                for line in lines:
                    packed.write(line + b"\n")
    except OSError as error:
        raise BadInput(f"cannot write {out_dir}: {error.strerror or error}") from error
    return paths


def usual(counts: Counter[_Value]) -> _Value:
    """Give the most frequent value; of several the smallest, so that runs agree."""
    return min(counts, key=lambda value: (-counts[value], value))
