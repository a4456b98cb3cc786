"""Small logs in the two-file format."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoder.evaluation.dataset import Dataset
from interest.event import TYPE_CODES, EventType

#: The Beauty set, where it lies beside the checkout.
BEAUTY = Path(__file__).parents[5] / "shared/data/amazon_beauty"
DAY_S = 86_400


def write(
    folder: Path, items: Sequence[str], sequences: Sequence[str], *, packed: bool = False
) -> Path:
    """Write lines of cells separated by |, header first."""
    for name, lines in (("items.tsv", items), ("sequences.tsv", sequences)):
        raw = "".join(line.replace("|", "\t") + "\n" for line in lines).encode()
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)
    return folder


def dataset(
    sequences: Sequence[Sequence[int]],
    *,
    n_items: int | None = None,
    days: Sequence[Sequence[int]] | None = None,
    types: Sequence[Sequence[EventType]] | None = None,
    titles: Sequence[str] | None = None,
) -> Dataset:
    """A log of rows of items; times are days since 2020."""
    n = n_items or 1 + max(max(one) for one in sequences)
    flat = [item for one in sequences for item in one]
    codes = [TYPE_CODES[type_] for one in types or [] for type_ in one]
    start = 18_262
    return Dataset(
        item_ids=[f"i{row}" for row in range(n)],
        titles=list(titles or [""] * n),
        user_ids=[f"u{row}" for row in range(len(sequences))],
        starts=np.cumsum([0, *map(len, sequences)]),
        items=np.array(flat, np.int32),
        times_s=None
        if days is None
        else np.array([(start + day) * DAY_S for one in days for day in one], np.int64),
        types=np.array(codes or [TYPE_CODES[EventType.CLICK]] * len(flat), np.uint8),
        ratings=np.full(len(flat), np.nan, np.float32),
        fingerprint="0" * 16,
    )
