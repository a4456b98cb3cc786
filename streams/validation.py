"""What makes a record of a source topic valid: its value, and its key beside it."""

from __future__ import annotations

from interest.errors import InvalidEvent, InvalidItem
from interest.event import Event, check_not_ahead, decode_event
from interest.item import Item, decode_item

_SHOWN: int = 64


def valid_event(value: bytes | None, key: bytes | None, now_ms: int) -> Event:
    """Decode a record of ``behaviours`` or ``routed``.

    Args:
        now_ms: what the event must not lie ahead of, see :func:`interest.event.check_not_ahead`.

    Raises:
        InvalidEvent: it breaks the contract.
    """
    event = decode_event(value)
    check_not_ahead(event, now_ms)
    if key is not None and key != event.user_id.encode():
        raise InvalidEvent("key_mismatch", f"key {key[:_SHOWN]!r} is not user_id {event.user_id!r}")
    return event


def valid_item(value: bytes | None, key: bytes | None) -> tuple[str, Item | None]:
    """Decode a record of ``catalogue``; give the item's id, and no item where it is removed.

    Raises:
        InvalidItem: it breaks the contract.
    """
    item_id: str | None = None
    if key is not None:
        try:
            item_id = key.decode()
        except UnicodeDecodeError as error:
            raise InvalidItem("key_mismatch", f"the key is not UTF-8: {error}") from error
    if value is None:
        if not item_id:
            raise InvalidItem("null_value", "a removal needs the item_id as key")
        return item_id, None
    item = decode_item(value)
    if item_id is not None and item_id != item.item_id:
        raise InvalidItem(
            "key_mismatch", f"key {item_id[:_SHOWN]!r} is not item_id {item.item_id!r}"
        )
    return item.item_id, item
