"""Where the windows of a partition are kept: all in memory, or the ones used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from streams.window_records import Held, WindowRecords

_WRITE_BUFFER_BYTES: Final = 4 * 1024 * 1024


class MemoryWindows(dict[str, Held]):
    """All in memory: the fastest, a kilobyte and a half for a user with fifty events."""

    def peek(self, subject_id: str) -> Held | None:
        """Give what is held without counting that as use."""
        return self.get(subject_id)

    def in_memory(self) -> list[str]:
        """Give the subjects whose window is in memory."""
        return list(self)

    def encoded(self, subject_id: str) -> None:
        """Nothing waits for that here."""

    def close(self) -> None:
        """Nothing is open."""


class _Stored(NamedTuple):
    """A changelog record as :meth:`WindowRecords.read` takes it."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[bytes, list[tuple[str, bytes]], int])


class SpilledWindows(MutableMapping[str, Held]):
    """Those used last in memory, the others in RocksDB, each as its changelog record.

    The changelog stays the only copy that counts: what lies here is made anew with every assignment
    and removed with the partition, so it is written without a log of its own. Where windows are
    encrypted in the changelog, they are here.

    What is got is in memory from then on and may be changed in place, until ``n_in_memory`` others
    were used. One with events that were not encoded yet stays, since a record does not hold these,
    until :meth:`encoded` is called. ``peek`` gives a copy of what lies on disk: changes to that are
    lost.

    Args:
        folder: must not exist; removed by :meth:`close`.
        n_in_memory: at least 1.
        partition: its number, for the records.
    """

    def __init__(
        self, folder: Path, n_in_memory: int, partition: int, records: WindowRecords
    ) -> None:
        from rocksdict import Options, Rdict, WriteOptions

        self._folder = folder
        self._n_in_memory = n_in_memory
        self._partition = partition
        self._records = records
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
        self._db: Any = Rdict(str(folder), options)
        no_log: Any = WriteOptions()
        no_log.disable_wal = True
        self._no_log = no_log
        #: Least recently used first.
        self._hot: OrderedDict[str, Held] = OrderedDict()
        #: What would be on disk if its events were encoded.
        self._waiting: dict[str, Held] = {}
        #: What lies on disk alone, and what does as an older copy.
        self._cold: set[str] = set()
        self._outdated: set[str] = set()

    def __getitem__(self, subject_id: str) -> Held:
        held = self._hot.get(subject_id)
        if held is not None:
            self._hot.move_to_end(subject_id)
            return held
        held = self._waiting.get(subject_id)
        if held is not None:
            return held
        held = self._read(subject_id)
        self._cold.discard(subject_id)
        self._outdated.add(subject_id)
        self._keep(subject_id, held)
        return held

    def __setitem__(self, subject_id: str, held: Held) -> None:
        if subject_id in self._cold:
            self._cold.discard(subject_id)
            self._outdated.add(subject_id)
        self._waiting.pop(subject_id, None)
        self._keep(subject_id, held)

    def __delitem__(self, subject_id: str) -> None:
        if subject_id not in self:
            raise KeyError(subject_id)
        self._hot.pop(subject_id, None)
        self._waiting.pop(subject_id, None)
        if subject_id in self._cold or subject_id in self._outdated:
            self._cold.discard(subject_id)
            self._outdated.discard(subject_id)
            self._db.delete(subject_id.encode(), self._no_log)

    def __contains__(self, subject_id: object) -> bool:
        return any(subject_id in part for part in (self._hot, self._waiting, self._cold))

    def __iter__(self) -> Iterator[str]:
        yield from self._hot
        yield from self._waiting
        yield from self._cold

    def __len__(self) -> int:
        return len(self._hot) + len(self._waiting) + len(self._cold)

    def peek(self, subject_id: str) -> Held | None:
        """Give what is held without counting that as use."""
        if subject_id in self._cold:
            return self._read(subject_id)
        return self._hot.get(subject_id) or self._waiting.get(subject_id)

    def in_memory(self) -> list[str]:
        """Give the subjects whose window is in memory."""
        return [*self._hot, *self._waiting]

    def encoded(self, subject_id: str) -> None:
        """Say that a window's events are encoded: it may go as any other."""
        held = self._waiting.get(subject_id)
        if held is not None and not held.new_events:
            del self._waiting[subject_id]
            self._keep(subject_id, held)

    def close(self) -> None:
        """Remove what is on disk; whoever still holds this finds what is in memory."""
        self._cold.clear()
        self._outdated.clear()
        if self._db is not None:
            from rocksdict import Rdict

            self._db.close()
            self._db = None
            Rdict.destroy(str(self._folder))

    def _read(self, subject_id: str) -> Held:
        if subject_id not in self._cold:
            raise KeyError(subject_id)
        key = subject_id.encode()
        value, headers, touched_ms = _decoder.decode(self._db.get(key))
        held = self._records.read(_Stored(key, value, headers, touched_ms))
        assert isinstance(held, Held)
        held.touched_ms = touched_ms  # of a changelog record it is known to the second
        return held

    def _keep(self, subject_id: str, held: Held) -> None:
        self._hot[subject_id] = held
        self._hot.move_to_end(subject_id)
        while len(self._hot) > self._n_in_memory and self._db is not None:
            oldest, left = self._hot.popitem(last=False)
            if left.new_events:
                self._waiting[oldest] = left
                continue
            record = self._records.window(self._partition, left)
            stored = _encoder.encode((record.value, record.headers, left.touched_ms))
            self._db.put(oldest.encode(), stored, self._no_log)
            self._outdated.discard(oldest)
            self._cold.add(oldest)


WindowMap = MemoryWindows | SpilledWindows
