"""Popular items as Redis holds them: per partition, log2 of a decayed count by item id."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from interest.errors import CorruptRecord

_MAX_ITEMS: Final = 1_000

_decoder = msgspec.msgpack.Decoder(dict[str, float])


def scores_to_bytes(scores: Mapping[str, float]) -> bytes:
    """Give the record of one partition: its best 1,000 items."""
    return msgspec.msgpack.encode(dict(_ranked(scores)[:_MAX_ITEMS]))


def most_popular(partitions: Iterable[bytes], k: int) -> list[tuple[str, float]]:
    """Add up the partitions (log-sum-exp, base 2); give the best ``k``, ties by item id.

    Raises:
        CorruptRecord: somebody else wrote one.
    """
    total: dict[str, float] = {}
    for raw in partitions:
        for item_id, score in _scores_from_bytes(raw).items():
            held = total.get(item_id)
            total[item_id] = score if held is None else _log2_sum(held, score)
    return _ranked(total)[:k]


def _scores_from_bytes(raw: bytes) -> dict[str, float]:
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"popular items of {len(raw)} bytes: {error}") from error


def _log2_sum(a: float, b: float) -> float:
    """Give log2(2^a + 2^b) without leaving the range of a float."""
    return max(a, b) + math.log2(1 + 2.0 ** -abs(a - b))


def _ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
