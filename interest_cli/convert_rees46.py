"""Logs of shops in the format of the REES46 data sets, to event and item JSON Lines.

What becomes what:

- ``view``, ``cart``, ``purchase`` → the types of the same name; ``remove_from_cart`` → ``remove``
- event id → number of the line, so that doubles stay two events
- ``event_time`` → ``ts``, in UTC; ``user_session`` → ``session_id``
- product → its id, with the price that most of its lines have; its title is its category in words
  and its brand, as far as the log names them, else ``category`` and the number of the category

Lines are dropped, and counted by reason: ``other_type``, ``malformed``.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from interest.event import Event, EventType, encode_event
from interest.item import Item, encode_item
from interest_cli.csv_files import read_csv, usual, write_log

_COLUMNS: Final = (
    "event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price",
    "user_id", "user_session",
)  # fmt: skip
_TYPES: Final = {
    "view": EventType.VIEW,
    "cart": EventType.CART,
    "purchase": EventType.PURCHASE,
    "remove_from_cart": EventType.REMOVE,
}


class ShopLog(NamedTuple):
    """What a conversion gave; ``dropped`` counts lines by reason."""

    n_events: int
    n_users: int
    n_items: int
    dropped: dict[str, int]


def convert_rees46(csv_path: Path, out_dir: Path) -> ShopLog:
    """Write ``events.jsonl.gz`` (in the order of the file) and ``items.jsonl.gz``.

    Raises:
        BadInput: the file is missing, no such CSV or a truncated gzip, or ``out_dir`` cannot
            be written.
    """
    dropped: Counter[str] = Counter()
    events: list[Event] = []
    titles: dict[str, Counter[str]] = {}
    prices: dict[str, Counter[float]] = {}
    for number, row in enumerate(read_csv(csv_path, _COLUMNS, "REES46"), start=1):
        item_id = row["product_id"]
        type_ = _TYPES.get(row["event_type"])
        if type_ is None:
            dropped["other_type"] += 1
            continue
        try:
            moment = datetime.strptime(row["event_time"], "%Y-%m-%d %H:%M:%S %Z")
            ts = int((moment - datetime(1970, 1, 1)).total_seconds()) * 1000
            price = float(row["price"])
        except (TypeError, ValueError):
            dropped["malformed"] += 1
            continue
        if not item_id or not row["user_id"]:
            dropped["malformed"] += 1
            continue
        events.append(
            Event(
                event_id=f"line-{number}",
                user_id=row["user_id"],
                type=type_,
                ts=ts,
                item_id=item_id,
                session_id=row["user_session"] or None,
            )
        )
        titles.setdefault(item_id, Counter())[_title(row)] += 1
        prices.setdefault(item_id, Counter())[price] += 1
    items = [
        Item(item_id=item_id, title=usual(titles[item_id]), price=usual(prices[item_id]))
        for item_id in sorted(titles)
    ]
    write_log(out_dir, map(encode_event, events), map(encode_item, items))
    users = {event.user_id for event in events}
    return ShopLog(len(events), len(users), len(items), dict(sorted(dropped.items())))


def _title(row: dict[str, str]) -> str:
    words = [*(row["category_code"] or "").replace("_", " ").split("."), row["brand"] or ""]
    return " ".join(word for word in words if word) or f"category {row['category_id']}"
