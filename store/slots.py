"""Which slot of a Redis Cluster a key lies in, and a name in the slot of another key.

A script may touch keys of one slot only. The marker of a forgotten user must lie beside the user's
hash without naming the user, so its name carries a number in braces that hashes to the same slot.
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import cache
from typing import Final

from interest.errors import BadInput

N_SLOTS: Final = 16_384


def slot_of(key: bytes) -> int:
    """Give the slot of a key: of what stands in its first braces, else of all of it."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % N_SLOTS


@cache
def tags() -> tuple[str, ...]:
    """Give the smallest number of each slot, as text: ``slot_of(f"{{{tags()[s]}}}") == s``."""
    found: list[str | None] = [None] * N_SLOTS
    n_missing, number = N_SLOTS, 0
    while n_missing:
        text = str(number)
        slot = crc_hqx(text.encode(), 0) % N_SLOTS
        if found[slot] is None:
            found[slot] = text
            n_missing -= 1
        number += 1
    return tuple(text for text in found if text is not None)


def check_prefix(prefix: str) -> None:
    """Refuse a key prefix whose braces would join with those of the keys.

    A whole tag, as in ``{shop}:``, is fine: it puts all keys in one slot.

    Raises:
        BadInput: an opening brace without its partner, or with nothing between.
    """
    start = prefix.find("{")
    if start >= 0 and prefix.find("}", start + 1) <= start + 1:
        raise BadInput(
            f"INTEREST_REDIS_PREFIX is {prefix!r}: a brace needs its partner, with text between"
        )
