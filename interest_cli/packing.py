"""Bytes of a plain, gzip or zstd file, unpacked as a stream that notices its missing end."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import zstandard

from interest.errors import BadInput

_zstd: Final = zstandard.ZstdDecompressor()


def unpack(chunks: Iterable[bytes], first: bytes) -> Iterator[bytes]:
    """Give the plain bytes of a file; ``first`` is its start and tells how it is packed.

    Raises:
        BadInput: after everything that could be unpacked, where the file is damaged or its end
            is missing. (The stream readers of gzip and zstandard differ on the latter: the
            second is silent.)
    """
    if first.startswith(b"\x1f\x8b"):
        return _decompress(chunks, lambda: zlib.decompressobj(31), "gzip")
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        return _decompress(chunks, _zstd.decompressobj, "zstd")
    return iter(chunks)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _decompress(
    chunks: Iterable[bytes], new: Callable[[], _Decompressor], what: str
) -> Iterator[bytes]:
    """Decompress a file of one or more members (frames), and notice when the last is cut off."""
    member = new()
    fresh = True
    for chunk in chunks:
        data = chunk
        while data:
            if member.eof:
                member, fresh = new(), True
                # Tapes and some tools pad with zeros after the last member.
                data = data.lstrip(b"\0")
                if not data:
                    break
            try:
                plain = member.decompress(data)
            except (zlib.error, zstandard.ZstdError) as error:
                raise BadInput(f"{what} is damaged ({error}); fetch the file again") from error
            fresh = False
            if plain:
                yield plain
            data = member.unused_data if member.eof else b""
    if not (fresh or member.eof):
        raise BadInput(f"{what} is truncated, its end is missing; fetch the file again")
