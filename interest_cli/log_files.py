"""An event log and its catalogue, read in whole for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from interest.clock import system_clock
from interest.errors import BadInput
from interest.event import Event
from interest.item import Item
from interest_cli.console import warn
from interest_cli.files import InvalidRecord, RecordFile, read_events, read_items

_WARNED: Final = 5


def read_log(log: Path, catalogue: Path | None) -> tuple[Iterator[Event], list[Item]]:
    """Give the events, to be read once, and the items; what is invalid is warned of.

    Raises:
        BadInput: a file is missing or no log; the events raise it when they are read.
    """
    if catalogue is None:
        raise BadInput("an event log needs --items FILE, its catalogue")
    invalid = _Invalid()
    items = list(read_items(RecordFile(catalogue, Item, warn), on_invalid=invalid.note))
    return _events(RecordFile(log, Event, warn), invalid), items


def _events(log: RecordFile, invalid: _Invalid) -> Iterator[Event]:
    yield from read_events(log, now_ms=system_clock(), on_invalid=invalid.note)
    if invalid.n:
        warn(f"{invalid.n} invalid records were passed over")


class _Invalid:
    """Counts invalid records, and warns of the first."""

    def __init__(self) -> None:
        self.n = 0

    def note(self, record: InvalidRecord) -> None:
        self.n += 1
        if self.n <= _WARNED:
            warn(f"{record.path}:{record.line}: {record.reason}: {record.detail}")
