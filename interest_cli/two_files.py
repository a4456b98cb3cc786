"""The two-file format of benchmarks as events and items: ``items.tsv`` and ``sequences.tsv``."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from interest.errors import BadInput
from interest.event import MIN_TS_MS, Event, EventType, name_of
from interest.item import Item


def read_two_files(folder: Path, *, leave_out: int = 0) -> tuple[list[Event], list[Item]]:
    """Read a folder; every event is a click, and of one time they stay in the order of the file.

    Without times an event comes a millisecond after the one before it.

    Args:
        leave_out: so many newest events of each user are not read: they are what others test with.

    Raises:
        BadInput: a file is missing or damaged, or a line is wrong; names file and line.
    """
    items = [
        Item(item_id=cells["item_id"], title=cells.get("title", ""))
        for _, cells in _lines(folder, "items.tsv", ("item_id",))
    ]
    events: list[Event] = []
    for where, cells in _lines(folder, "sequences.tsv", ("user_id", "item_ids")):
        ids = cells["item_ids"].split()
        times = [MIN_TS_MS + i for i in range(len(ids))]
        if "unix_times" in cells:
            try:
                times = [int(time) * 1000 for time in cells["unix_times"].split()]
            except ValueError as error:
                raise BadInput(f"{where}: unix_times are whole seconds") from error
        if not ids or len(times) != len(ids):
            raise BadInput(f"{where}: {len(ids)} item_ids and {len(times)} unix_times")
        events += [
            Event(
                event_id=name_of((len(events) + place).to_bytes(8, "big")),
                user_id=cells["user_id"],
                type=EventType.CLICK,
                ts=time,
                item_id=item_id,
            )
            for place, (item_id, time) in enumerate(zip(ids, times, strict=True))
        ][: max(0, len(ids) - leave_out)]
    return events, items


def _lines(
    folder: Path, name: str, needed: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Give (file and line, cells by column) of each line."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise BadInput(f"{folder} holds no {name} or {name}.gz; name a folder with both files")
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    names, *lines = [
        line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()
    ] or [[]]
    missing = [column for column in needed if column not in names]
    if missing or not lines:
        what = f"lacks the column {missing[0]}" if missing else "holds no line but its header"
        raise BadInput(f"{path} {what}")
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(names) or not cells[0]:
            raise BadInput(f"{path}:{number}: {len(cells)} columns, expected {len(names)}")
        yield f"{path}:{number}", dict(zip(names, cells, strict=True))
