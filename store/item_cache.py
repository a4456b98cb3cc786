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
        #: Raised by every put and drop, so that a fetch under way knows its answer may be old.
        self._version = 0

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
            version = self._version
            fetched = await self._store.fetch(missing)
            if version == self._version:
                self._keep(fetched)
            else:
                # The feed moved while we asked. Its word is newer than the store's answer.
                fetched |= {i: self._items[i] for i in missing if i in self._items}
            found |= fetched
        return found

    def put(self, items: Sequence[EncodedItem]) -> None:
        """Replace what is cached of these items."""
        self._version += 1
        self._keep({encoded.item.item_id: encoded for encoded in items})

    def drop(self, item_ids: Sequence[str]) -> None:
        """Forget these items."""
        self._version += 1
        for item_id in item_ids:
            self._items.pop(item_id, None)

    def _keep(self, items: dict[str, EncodedItem]) -> None:
        for item_id, encoded in items.items():
            self._items[item_id] = encoded
            self._items.move_to_end(item_id)
        while len(self._items) > self._max_items:
            self._items.popitem(last=False)
