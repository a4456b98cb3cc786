"""Items that a training is kept from, to see what it makes of items it never met."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from interest.bundle import TrainingRecord
from interest.window import BehaviourWindow

#: Under this name a training record tells the share.
PARAMETER: Final = "hold_out_items"
_SPAN: Final = 2**64


def held_out_items(item_ids: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Draw items by a hash of seed and id, so that order and number of the others do not matter.

    Returns:
        (N,) true for about ``share`` of the items.
    """
    below = round(share * _SPAN)
    return np.array([_draw(item_id, seed) < below for item_id in item_ids], np.bool_)


def held_out_by(record: TrainingRecord | None, item_ids: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which items the training of a bundle was kept from, (N,)."""
    share = record.parameters.get(PARAMETER, 0.0) if record is not None else 0.0
    return held_out_items(item_ids, float(share), record.seed if record is not None else 0)


def without_items(
    windows: Iterable[BehaviourWindow], share: float, seed: int
) -> list[BehaviourWindow]:
    """Give histories as if the drawn items did not exist; users of nothing else are left out."""
    if not share:
        return list(windows)
    kept: list[BehaviourWindow] = []
    drawn: dict[str, bool] = {}
    for window in windows:
        for item_id in window.item_ids - drawn.keys():
            drawn[item_id] = bool(held_out_items([item_id], share, seed)[0])
        names = window.items.names
        rows = [row for row in window.rows() if not (row.item and drawn[names[row.item]])]
        if rows:
            kept.append(window.with_rows(rows))
    return kept


def _draw(item_id: str, seed: int) -> int:
    raw = f"{seed}:{item_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")
