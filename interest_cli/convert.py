"""Online Retail (UCI) to event and item JSON Lines, and the sample that ships with the project.

What becomes what:

- a line of an invoice → ``purchase``; of a cancellation (``InvoiceNo`` starts with C) → ``return``
- event id → invoice and number of the line within it, in file order: ``536365-0001``
- ``InvoiceDate`` → ``ts``; the shop gives no zone, so it is read as UTC
- invoice → ``session_id`` (a basket)
- item → its code, with the description and the price that most of its lines have

Lines are dropped, and counted by reason, where nobody chose a product: ``no_customer``,
``no_product`` (postage, fees, manual corrections), ``not_paid`` (price 0: a gift or a
correction), ``no_quantity`` (a stock correction), ``malformed``.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from interest.event import Event, EventType, encode_event
from interest.item import Item, encode_item
from interest_cli.csv_files import read_csv, usual, write_log

DOMAIN: Final = "online-retail"
SAMPLE_FOLDER: Final = Path(__file__).parent / "sample"
#: The sample: users with a line since this day, a fixed draw of them, their lines since then.
SAMPLE_SINCE: Final = datetime(2011, 10, 1, tzinfo=UTC)
SAMPLE_USERS: Final = 600

_COLUMNS: Final = (
    "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID",
)  # fmt: skip
_PRODUCT: Final = re.compile(r"[0-9]{5}")
#: Services with a code like a product's: next-day carriage, packing charge, an image file.
_SERVICES: Final = frozenset({"23444", "23574", "23702"})
#: How a date looks after a spreadsheet has saved the file; otherwise it is ISO 8601.
_SPREADSHEET_DATE: Final = "%m/%d/%Y %H:%M"

_NOTICE: Final = """\
The events and items in this folder are taken from

    Chen, D. (2015). Online Retail [Dataset]. UCI Machine Learning Repository.
    https://doi.org/10.24432/C5BW33

licensed under the Creative Commons Attribution 4.0 International licence (CC BY 4.0),
https://creativecommons.org/licenses/by/4.0/

Changes: converted to JSON Lines; lines without a customer, of codes that are no product, and
not paid for were dropped; {n_users} customers who bought since {since} were drawn by a hash of
their number, with all their lines from that day on.

Made again by
    python -m interest_cli.convert online_retail.csv.gz
"""


class Conversion(NamedTuple):
    """What a conversion gave; ``dropped`` counts lines by reason."""

    n_lines: int
    n_events: int
    n_returns: int
    n_users: int
    n_items: int
    dropped: dict[str, int]
    events_path: Path
    items_path: Path


class _Line(NamedTuple):
    event: Event
    description: str
    price: float


def convert_online_retail(csv_path: Path, out_dir: Path) -> Conversion:
    """Write ``events.jsonl.gz`` (by event time) and ``items.jsonl.gz`` into ``out_dir``.

    The same file gives the same bytes (with the same zlib).

    Raises:
        BadInput: the file is missing, no such CSV or a truncated gzip, or ``out_dir`` cannot
            be written.
    """
    dropped: Counter[str] = Counter()
    lines = list(_read(csv_path, dropped))
    return _write(lines, [line.event for line in lines], out_dir, dropped)


def write_sample(csv_path: Path, out_dir: Path = SAMPLE_FOLDER) -> Conversion:
    """Write the sample of the project: whole users, with their lines since October 2011."""
    dropped: Counter[str] = Counter()
    since_ms = int(SAMPLE_SINCE.timestamp()) * 1000
    lines = list(_read(csv_path, dropped))
    recent = [line.event for line in lines if line.event.ts >= since_ms]
    users = sorted({event.user_id for event in recent}, key=_draw)[:SAMPLE_USERS]
    chosen = frozenset(users)
    events = [event for event in recent if event.user_id in chosen]
    dropped["outside_sample"] = len(lines) - len(events)
    conversion = _write(lines, events, out_dir, dropped)
    notice = _NOTICE.format(n_users=len(users), since=SAMPLE_SINCE.date())
    (out_dir / "NOTICE").write_text(notice, encoding="utf-8")
    return conversion


def _draw(user_id: str) -> bytes:
    return hashlib.blake2b(user_id.encode(), digest_size=8).digest()


def _read(path: Path, dropped: Counter[str]) -> Iterator[_Line]:
    """Read the lines in which a customer bought or returned a product."""
    n_in_invoice: Counter[str] = Counter()
    for row in read_csv(path, _COLUMNS, "Online Retail"):
        invoice = (row["InvoiceNo"] or "").strip()
        # Dropped lines count too, so an id does not depend on what is dropped.
        n_in_invoice[invoice] += 1
        line = _parse(row, invoice, n_in_invoice[invoice])
        if isinstance(line, str):
            dropped[line] += 1
        else:
            yield line


def _parse(row: dict[str, str], invoice: str, number: int) -> _Line | str:
    """Give the line of a row, or the reason to drop it."""
    code = (row["StockCode"] or "").strip().upper()
    user_id = (row["CustomerID"] or "").strip()
    description = " ".join((row["Description"] or "").split())
    if not user_id:
        return "no_customer"
    if not _PRODUCT.match(code) or code in _SERVICES:
        return "no_product"
    try:
        price = float(row["UnitPrice"])
        quantity = int(row["Quantity"])
        ts = _time_ms(row["InvoiceDate"])
    except (TypeError, ValueError):
        return "malformed"
    if not invoice or not description:
        return "malformed"
    returned = invoice.startswith("C")
    if not price > 0:
        return "not_paid"
    if quantity <= 0 and not returned:
        return "no_quantity"
    event = Event(
        event_id=f"{invoice}-{number:04d}",
        user_id=user_id,
        type=EventType.RETURN if returned else EventType.PURCHASE,
        ts=ts,
        item_id=code,
        session_id=invoice,
        domain=DOMAIN,
    )
    return _Line(event, description, price)


def _time_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.strptime(text, _SPREADSHEET_DATE)
    return int(moment.replace(tzinfo=UTC).timestamp()) * 1000


def _write(
    lines: list[_Line], events: list[Event], out_dir: Path, dropped: Counter[str]
) -> Conversion:
    """Write ``events`` and their items, described by all ``lines``."""
    titles: dict[str | None, Counter[str]] = {}
    prices: dict[str | None, Counter[float]] = {}
    for event, description, price in lines:
        titles.setdefault(event.item_id, Counter())[description] += 1
        prices.setdefault(event.item_id, Counter())[price] += 1
    items = [
        Item(item_id=code, title=usual(titles[code]), price=usual(prices[code]), domain=DOMAIN)
        for code in sorted({event.item_id for event in events if event.item_id})
    ]
    events = sorted(events, key=lambda event: (event.ts, event.event_id))
    events_path, items_path = write_log(out_dir, map(encode_event, events), map(encode_item, items))
    return Conversion(
        n_lines=len(events) + dropped.total(),
        n_events=len(events),
        n_returns=sum(event.type is EventType.RETURN for event in events),
        n_users=len({event.user_id for event in events}),
        n_items=len(items),
        dropped=dict(sorted(dropped.items())),
        events_path=events_path,
        items_path=items_path,
    )


if __name__ == "__main__":
    import sys

    print(write_sample(Path(sys.argv[1])))
