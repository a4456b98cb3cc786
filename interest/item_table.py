"""Item ids as numbers: a window names an item in four bytes, whatever its id is.

A number means the same item for the life of its table, and every window holds its table, so that
no window can ever show another item than its own. A table only grows. What is no longer in any
window goes when a worker moves its windows to a new table (:mod:`streams.compaction`); the old one
lives as long as somebody still looks at a window of it.
"""

from __future__ import annotations

import struct
from typing import Final

NO_ITEM: Final = 0
ITEM_BYTES: Final = 4


class ItemTable:
    """Item ids by number and numbers by id; 0 stands for no item."""

    __slots__ = ("_numbers", "names")

    def __init__(self) -> None:
        #: The id of each number; ``names[0]`` is empty.
        self.names: list[str] = [""]
        self._numbers: dict[str | None, int] = {None: NO_ITEM}

    def __len__(self) -> int:
        return len(self.names)

    def number(self, item_id: str | None) -> int:
        """Give the number of an item, a new one where it has none yet."""
        number = self._numbers.get(item_id)
        if number is None:
            number = self._numbers[item_id] = len(self.names)
            self.names.append(item_id)  # type: ignore[arg-type]  # None has a number
        return number

    def find(self, item_id: str) -> int | None:
        """Give the number of an item that is in the table."""
        return self._numbers.get(item_id)

    def id_of(self, number: int) -> str | None:
        """Give the id of a number."""
        return self.names[number] if number else None

    def pack(self, item_ids: list[str | None]) -> bytes:
        """Give the numbers of items as little-endian u32."""
        try:
            known = list(map(self._numbers.__getitem__, item_ids))  # the fastest way there is
        except KeyError:
            known = [self.number(item_id) for item_id in item_ids]
        return struct.pack(f"<{len(known)}I", *known)

    def moved(self, numbers: bytes, source: ItemTable) -> bytes:
        """Give the numbers of this table for those of another one, both as u32."""
        return self.pack([source.id_of(number) for number in unpack_numbers(numbers)])


def unpack_numbers(numbers: bytes) -> tuple[int, ...]:
    """Read little-endian u32."""
    return struct.unpack(f"<{len(numbers) // ITEM_BYTES}I", numbers)


#: The table of windows that are built without naming another.
SHARED: Final = ItemTable()
