"""What a filter and a score mean, for items that are at hand; the engines give the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from interest.item import Item, ItemFilter


def matches(item: Item, where: ItemFilter) -> bool:
    """Tell whether an item satisfies a filter, with the meaning the engines give it."""
    return (
        (not where.only_available or item.available)
        and (where.category is None or where.category in item.categories)
        and (where.brand is None or where.brand == item.brand)
        and (where.domain is None or where.domain == item.domain)
        and (where.min_price is None or (item.price is not None and item.price >= where.min_price))
        and (where.max_price is None or (item.price is not None and item.price <= where.max_price))
    )


def best_scores(interests: NDArray[Any], items: NDArray[Any]) -> NDArray[Any]:
    """Score items exhaustively: the greatest dot product with any of the interests.

    Shapes: ``interests`` (n, D) with n ≥ 1, ``items`` (N, D); gives (N,).
    """
    scores: NDArray[Any] = np.max(items @ interests.T, axis=1)
    return scores
