"""What is said of records of a log that break the contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from interest.errors import BadInput, InvalidEvent
from interest_cli.console import warn
from interest_cli.files import InvalidRecord, RecordFile

_WARNED: Final = 5
#: So many invalid records at the start, and no valid one, and the file is the wrong one.
_HOPELESS: Final = 100


class InvalidRecords:
    """Reports the first invalid records one by one, and counts all."""

    def __init__(self) -> None:
        self._n = 0
        self._path = ""
        self._line = 0

    def raws(self, file: RecordFile) -> Iterator[bytes]:
        """Give the records of a file, keeping the place for :meth:`note`.

        Raises:
            BadInput: nothing is valid from the start: the file is something else.
        """
        self._path = file.path
        for record in file:
            if self._n == self._line == _HOPELESS:
                raise BadInput(
                    f"{file.path}: the first {_HOPELESS} records are invalid; is it another kind "
                    "of file? (`interest convert` makes events of public data sets)"
                )
            self._line += 1
            yield record.raw

    def note(self, error: InvalidEvent) -> None:
        """Take note of the record that :meth:`raws` gave last."""
        self._add(f"{self._path}:{self._line}: {error}")

    def note_record(self, record: InvalidRecord) -> None:
        """Take note of a record."""
        self._add(f"{record.path}:{record.line}: {record.reason}: {record.detail}")

    def _add(self, line: str) -> None:
        self._n += 1
        if self._n <= _WARNED:
            warn(line)

    def summary(self) -> str:
        """Say how many, to be put behind what was read; nothing where there is none."""
        return f", {self._n} of them invalid (dead letters)" if self._n else ""
