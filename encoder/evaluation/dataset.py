"""The two-file format of interaction logs, read and checked.

``items.tsv`` holds ``item_id`` and optionally ``title``; ``sequences.tsv`` holds ``user_id``,
``item_ids`` and optionally ``unix_times`` (seconds), ``types`` and ``ratings``, which are lists
separated by spaces, oldest event first. UTF-8, tab-separated, no quoting, one header line; either
file may be packed with gzip (``.tsv.gz``). Other columns are passed over.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from interest.errors import BadInput
from interest.event import MAX_ID_CHARS, MAX_TS_MS, TYPE_CODES, EventType
from interest.item import Item

_T = TypeVar("_T")

_WHERE: Final = "see docs/evaluation.md for the format"
_MAX_UNIX_S: Final = MAX_TS_MS // 1000
#: What an event is where the log does not say.
DEFAULT_TYPE: Final = EventType.CLICK
_TYPE_CODES: Final = {
    type_.value: code for type_, code in TYPE_CODES.items() if type_ is not EventType.IMPRESSION
}


class Dataset(NamedTuple):
    """A log of interactions: one user after the other, the events of each oldest first.

    Shapes: U users, N items, M events; the events of user u are ``starts[u]:starts[u + 1]``. Rows
    of users and items are their places in the files, and nothing but names: no ranker sees them.
    """

    item_ids: list[str]
    #: Empty for an item without one.
    titles: list[str]
    user_ids: list[str]
    starts: NDArray[np.int64]  # (U + 1,)
    items: NDArray[np.int32]  # (M,) rows
    #: (M,) Unix seconds; None where the log has no times.
    times_s: NDArray[np.int64] | None
    types: NDArray[np.uint8]  # (M,) codes of interest.event.TYPES
    ratings: NDArray[np.float32]  # (M,) NaN for none
    #: 16 hex digits: the hash of what both files say, however they are packed.
    fingerprint: str

    @property
    def n_items(self) -> int:
        """Items in the catalogue."""
        return len(self.item_ids)

    @property
    def n_users(self) -> int:
        """Users."""
        return len(self.user_ids)

    def catalogue(self) -> list[Item]:
        """Give the items as a catalogue holds them; an item without a title has an empty one."""
        return [
            Item(item_id=item_id, title=title)
            for item_id, title in zip(self.item_ids, self.titles, strict=True)
        ]

    def users(self) -> NDArray[np.int64]:
        """Give the user of each event, (M,)."""
        return np.repeat(np.arange(self.n_users), np.diff(self.starts))


def read_dataset(folder: Path) -> Dataset:
    """Read the two files of a folder, and check every line.

    Raises:
        BadInput: a file is missing, damaged or empty, or a line is wrong; names file and line.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; name one with items.tsv and sequences.tsv")
    digest = hashlib.blake2b(digest_size=8)
    items = _Table(folder, "items.tsv", ("item_id",), digest.update)
    item_ids: list[str] = []
    titles: list[str] = []
    for cells in items:
        item_ids.append(items.id_of(cells["item_id"]))
        titles.append(cells.get("title", ""))
    rows = {item_id: row for row, item_id in enumerate(item_ids)}
    if len(rows) < len(item_ids):
        raise BadInput(f"{items.path}: {_twice(item_ids)} stands there twice; keep one line of it")

    log = _Table(folder, "sequences.tsv", ("user_id", "item_ids"), digest.update)
    user_ids: list[str] = []
    starts = [0]
    columns = _Columns(log)
    for cells in log:
        user_ids.append(log.id_of(cells["user_id"]))
        starts.append(starts[-1] + columns.add(cells, rows))
    if len(set(user_ids)) < len(user_ids):
        raise BadInput(f"{log.path}: {_twice(user_ids)} stands there twice; keep one line of it")
    return Dataset(
        item_ids,
        titles,
        user_ids,
        np.array(starts, np.int64),
        *columns.arrays(),
        digest.hexdigest(),
    )


class _Columns:
    """The lists of ``sequences.tsv``, one user's after the other's."""

    def __init__(self, table: _Table) -> None:
        self._table = table
        self._items: list[int] = []
        self._times: list[int] = []
        self._types: list[int] = []
        self._ratings: list[float] = []

    def add(self, cells: dict[str, str], rows: dict[str, int]) -> int:
        """Take the lists of a user; return how many events they hold."""
        table = self._table
        ids = cells["item_ids"].split()
        if not ids:
            raise table.wrong("no item_ids; leave users without an event out")
        try:
            self._items += [rows[item_id] for item_id in ids]
        except KeyError as error:
            raise table.wrong(f"item {error.args[0]} is not in items.tsv; add it there") from error
        if "unix_times" in table.names:
            times = self._list(cells, "unix_times", len(ids), int)
            if times[0] < 0 or times[-1] > _MAX_UNIX_S:
                raise table.wrong("unix_times are seconds from 1970 to 9999 (not milliseconds)")
            if any(later < before for before, later in itertools.pairwise(times)):
                raise table.wrong("unix_times go back; write the events oldest first")
            self._times += times
        if "types" in table.names:
            self._types += self._list(cells, "types", len(ids), _TYPE_CODES.__getitem__)
        if "ratings" in table.names:
            ratings = self._list(cells, "ratings", len(ids), float)
            if any(rating < 0 or rating > 5 for rating in ratings):
                raise table.wrong("ratings are numbers from 0 to 5, or nan for none")
            self._ratings += ratings
        return len(ids)

    def _list(
        self, cells: dict[str, str], name: str, n: int, parse: Callable[[str], _T]
    ) -> list[_T]:
        words = cells[name].split()
        if len(words) != n:
            raise self._table.wrong(f"{len(words)} {name} for {n} item_ids; write one for each")
        try:
            return [parse(word) for word in words]
        except (KeyError, ValueError) as error:
            known = f": one of {' '.join(_TYPE_CODES)}" if name == "types" else ""
            raise self._table.wrong(f"{name} cannot be read ({error}){known}") from error

    def arrays(
        self,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64] | None, NDArray[np.uint8], NDArray[np.float32]]:
        """Give items, times, types and ratings."""
        n, names = len(self._items), self._table.names
        types = self._types if "types" in names else [TYPE_CODES[DEFAULT_TYPE]] * n
        ratings = self._ratings if "ratings" in names else [np.nan] * n
        return (
            np.array(self._items, np.int32),
            np.array(self._times, np.int64) if "unix_times" in names else None,
            np.array(types, np.uint8),
            np.array(ratings, np.float32),
        )


class _Table:
    """A table of one file: iterate its lines as cells by column."""

    def __init__(
        self, folder: Path, name: str, needed: tuple[str, ...], seen: Callable[[bytes], None]
    ) -> None:
        packed = folder / f"{name}.gz"
        self.path = packed if packed.is_file() else folder / name
        self.names: list[str] = []
        self._needed = needed
        self._seen = seen
        self._line = 0

    def wrong(self, what: str) -> BadInput:
        """Give the error of the line that was read last."""
        return BadInput(f"{self.path}:{self._line}: {what}")

    def id_of(self, cell: str) -> str:
        """Give an id that an event can carry.

        Raises:
            BadInput: it is empty or too long.
        """
        if not 0 < len(cell) <= MAX_ID_CHARS:
            raise self.wrong(f"an id has 1 to {MAX_ID_CHARS} characters, this one {len(cell)}")
        return cell

    def __iter__(self) -> Iterator[dict[str, str]]:
        for cells in self._cells():
            if not self.names:
                self.names = cells
                missing = [name for name in self._needed if name not in cells]
                if missing:
                    raise self.wrong(f"the header lacks {' and '.join(missing)}; {_WHERE}")
                if len(set(cells)) < len(cells):
                    raise self.wrong(f"the header names {_twice(cells)} twice")
                continue
            if len(cells) != len(self.names):
                raise self.wrong(
                    f"{len(cells)} cells, the header has {len(self.names)}; "
                    "separate them by one tab"
                )
            yield dict(zip(self.names, cells, strict=True))
        if self._line < 2:  # the header alone
            raise BadInput(f"{self.path} is empty; {_WHERE}")

    def _cells(self) -> Iterator[list[str]]:
        opened = gzip.open if self.path.suffix == ".gz" else open
        try:
            with opened(self.path, "rb") as file:
                for raw in file:
                    self._line += 1
                    self._seen(raw.rstrip(b"\r\n") + b"\n")
                    text = raw.decode("utf-8-sig" if self._line == 1 else "utf-8")
                    yield text.rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise self.wrong("not UTF-8; convert the file (iconv -t UTF-8)") from error
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BadInput(f"{self.path} is damaged ({error}); fetch it again") from error
        except OSError as error:
            raise BadInput(f"{self.path}: {error.strerror or error}; {_WHERE}") from error


def _twice(names: list[str]) -> str:
    return next(name for name, n in Counter(names).items() if n > 1)
