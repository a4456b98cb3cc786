"""Records on another partition than their subject's are sent on, and keep their arrival."""

from __future__ import annotations

import re
from typing import Any, Final

#: On records that were sent on: the broker's time stamp of the source record, Unix ms.
SOURCE_TIMESTAMP: Final = "source-timestamp-ms"
_MILLIS: Final = re.compile(rb"[0-9]{1,15}")


def arrived_ms(record: Any, *, sent_on: bool) -> int:
    """Give the broker's time stamp of the source record (aiokafka's ``ConsumerRecord``), Unix ms.

    Args:
        sent_on: whether the record lies on a topic that we send on to; elsewhere the header
            would be a producer's.
    """
    own = int(record.timestamp)
    if sent_on:
        # Ours is the last header of the name; a producer may have written others.
        for name, value in reversed(record.headers):
            if name == SOURCE_TIMESTAMP and value is not None and _MILLIS.fullmatch(value):
                return min(own, int(value))
    return own


def sent_on_headers(
    record: Any, arrived: int, *, bare: bool = False
) -> tuple[tuple[str, bytes], ...]:
    """Give the headers of a record that is sent on: its own, and when it arrived.

    Args:
        bare: leave its own out; a producer may have written an id there.
    """
    own = () if bare else tuple((name, value or b"") for name, value in record.headers)
    return (*own, (SOURCE_TIMESTAMP, str(arrived).encode()))
