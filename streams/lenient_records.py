"""Reading records whose header names are no UTF-8.

The protocol calls a header's name a string, but brokers take any bytes, and any client written in
C can send them. aiokafka raises at such a record and never gets past it: one message would stop a
partition for ever. Here the batch is read again, and the name is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint

_MAGIC_WITH_HEADERS: Final = 2


def install() -> None:
    """Have every consumer of this process read records so; calling it again changes nothing."""
    fetcher.MemoryRecords = LenientRecords


class LenientRecords(_MemoryRecordsPy):  # type: ignore[misc,unused-ignore]
    """The batches of a fetch; as quick as aiokafka's own, since only slicing is done here."""

    def next_batch(self, *args: Any) -> Any:
        """Give the next batch."""
        raw = self._next_slice
        batch = super().next_batch(*args)
        if raw is None or raw[self.MAGIC_OFFSET] < _MAGIC_WITH_HEADERS:
            return batch
        return _Batch(batch, raw)


class _Batch:
    """A batch as aiokafka reads it, and in another way where that fails."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            # All at once: what was yielded before a failure would come a second time.
            records = list(self._batch)
        except UnicodeDecodeError:
            records = list(_EscapingBatch(self._raw))
        return iter(records)


class _EscapingBatch(_DefaultRecordBatchPy):  # type: ignore[misc,unused-ignore]
    """aiokafka's reader in Python, which escapes what is no UTF-8 in names of headers."""

    _pos: int

    def _read_msg(self, *args: Any) -> Any:
        start = self._pos
        try:
            return super()._read_msg(*args)
        except UnicodeDecodeError:
            self._pos = start
            self._escape_names()
            return super()._read_msg(*args)

    def _escape_names(self) -> None:
        """Write the record at the present position anew, its header names escaped."""
        buffer = self._buffer
        length, body = decode_varint(buffer, self._pos)
        end = body + length
        position = body + 1  # attributes
        for _ in range(2):  # time stamp, offset
            _, position = decode_varint(buffer, position)
        for _ in range(2):  # key, value
            size, position = decode_varint(buffer, position)
            position += max(size, 0)
        n_headers, position = decode_varint(buffer, position)
        written = buffer[body:position]
        for _ in range(n_headers):
            size, position = decode_varint(buffer, position)
            name = bytes(buffer[position : position + size])
            escaped = name.decode(errors="backslashreplace").encode()
            position += size
            size, after = decode_varint(buffer, position)
            value_end = after + max(size, 0)
            written += _varint(len(escaped)) + escaped + buffer[position:value_end]
            position = value_end
        buffer[self._pos : end] = _varint(len(written)) + written


def _varint(value: int) -> bytes:
    """Encode as Kafka does: zigzag, then seven bits a byte."""
    rest = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)
