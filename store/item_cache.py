"""A bounded cache of encoded items over an item store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from interest.item import EncodedItem
from interest.ports import ItemStore


class ItemCache:
    """The port ``ItemLookup``: the items used last, at most ``max_items``.

    Ids that the store does not know are asked for again each time: an item may come any moment.
    """

    def __init__(self, store: ItemStore, max_items: int) -> None:
        self._store = store
        self._max_items = max_items
        self._items: OrderedDict[str, EncodedItem] = OrderedDict()
        #: For each fetch under way, the items that were put or dropped since it asked.
        self._changed: list[set[str]] = []

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        """Read items, from memory where possible; unknown ids are left out."""
        found: dict[str, EncodedItem] = {}
        missing: list[str] = []
        for item_id in item_ids:
            item = self._items.get(item_id)
            if item is None:
                missing.append(item_id)
            else:
                self._items.move_to_end(item_id)
                found[item_id] = item
        if missing:
            found |= await self._ask(missing)
        return found

    async def _ask(self, missing: Sequence[str]) -> dict[str, EncodedItem]:
        changed: set[str] = set()
        self._changed.append(changed)
        try:
            fetched = await self._store.fetch(missing)
        finally:
            # By identity: two fetches under way may have equal sets.
            self._changed = [other for other in self._changed if other is not changed]
        # What the feed said meanwhile is newer than the store's answer. Only for those items:
        # during a bulk load the feed never rests, and the others must be kept all the same.
        self._keep({i: encoded for i, encoded in fetched.items() if i not in changed})
        return fetched | {
            i: self._items[i] for i in changed.intersection(missing) & self._items.keys()
        }

    def put(self, items: Sequence[EncodedItem]) -> None:
        """Replace what is cached of these items."""
        self._note({encoded.item.item_id for encoded in items})
        self._keep({encoded.item.item_id: encoded for encoded in items})

    def drop(self, item_ids: Sequence[str]) -> None:
        """Forget these items."""
        self._note(set(item_ids))
        for item_id in item_ids:
            self._items.pop(item_id, None)

    def _note(self, item_ids: set[str]) -> None:
        for changed in self._changed:
            changed |= item_ids

    def _keep(self, items: dict[str, EncodedItem]) -> None:
        for item_id, encoded in items.items():
            self._items[item_id] = encoded
            self._items.move_to_end(item_id)
        while len(self._items) > self._max_items:
            self._items.popitem(last=False)
