"""What a filter means, for items that are at hand."""

from __future__ import annotations

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
