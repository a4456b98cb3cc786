"""How long behaviour windows are in real logs. numpy and the standard library alone.

Read from ``DATA/amazon_beauty/sequences.tsv.gz`` (``user_id, item_ids, …``, the lists separated by
spaces) and ``DATA/online_retail/online_retail.csv.gz`` (a row per invoice line), cut at 50 events.
Where they are absent, lengths are drawn by seed from distributions with about the same mean and
quartiles, and the rows say *synthetic*:

- Beauty: 5 + a log-normal of mu 0.4, sigma 1.35, rounded down (half of the users have 5 or 6);
- Online Retail: a log-normal of mu 3.7, sigma 1.3, at least 1 (half of the customers reach 50).
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_EVENTS: Final = 50
_DRAWN: Final = 20_000


class WindowLengths(NamedTuple):
    """Events of each user's window, and what to call them."""

    name: str
    lengths: NDArray[np.int64]


def beauty(data: Path) -> WindowLengths:
    """Give the lengths of Amazon Beauty."""
    path = data / "amazon_beauty" / "sequences.tsv.gz"
    if not path.is_file():
        return _drawn("Beauty", 5, 0.4, 1.35)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        next(file)
        counts = [len(line.split("\t")[1].split()) for line in file]
    return _cut("Beauty", counts)


def online_retail(data: Path) -> WindowLengths:
    """Give the lengths of Online Retail, lines with a customer."""
    path = data / "online_retail" / "online_retail.csv.gz"
    if not path.is_file():
        return _drawn("Online Retail", 0, 3.7, 1.3)
    with gzip.open(path, "rb") as raw:
        rows = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", errors="replace"))
        counts = Counter(row["CustomerID"] for row in rows if row["CustomerID"])
    return _cut("Online Retail", list(counts.values()))


def _cut(name: str, counts: list[int]) -> WindowLengths:
    return WindowLengths(name, np.minimum(np.array(counts, np.int64), MAX_EVENTS))


def _drawn(name: str, least: int, mu: float, sigma: float) -> WindowLengths:
    drawn = np.random.default_rng(0).lognormal(mu, sigma, _DRAWN).astype(np.int64)
    return WindowLengths(f"{name} (synthetic)", np.clip(least + drawn, max(least, 1), MAX_EVENTS))
