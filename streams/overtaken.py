"""Items of which a worker that woke from a long stop announced an old version last.

Readers that know the newer version leave the old one out. But compaction keeps what was announced
last, and a shared item store may hold the old one, too. So the owner of the catalogue's partition
reads the newer record again, and stores and announces its item once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from interest.errors import ServiceUnavailable
from interest.settings import Settings
from streams.items_feed import ItemsFeed, Source
from streams.scan import open_scan

log = logging.getLogger(__name__)

#: Between two looks at what other owners may have mended.
_PAUSE_S: Final = 1.0


class Overtaken:
    """Mends what the feed reports.

    Args:
        topic: the catalogue.
        owns: whether a partition of it is this worker's.
        announce: stores and announces the items of catalogue records.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        feed: ItemsFeed,
        owns: Callable[[int], bool],
        announce: Callable[[Sequence[Any]], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._feed = feed
        self._owns = owns
        self._announce = announce

    @property
    def pending(self) -> bool:
        """True while an old version is the last one announced."""
        return bool(self._feed.overtaken)

    async def run(self) -> None:
        """Mend until cancelled."""
        while True:
            await self._feed.on_overtaken.wait()
            self._feed.on_overtaken.clear()
            while self.pending:
                ours = {i: s for i, s in self._feed.overtaken.items() if self._owns(s.partition)}
                try:
                    await self._mend(ours)
                except ServiceUnavailable as error:
                    log.warning("items announced in an old version wait: %s", error)
                # What is announced comes back by the feed, which takes it off the list.
                await asyncio.sleep(_PAUSE_S)

    async def _mend(self, items: dict[str, Source]) -> None:
        if not items:
            return
        log.info("%d items are announced anew", len(items))
        async with open_scan(self._settings) as scan:
            for item_id, source in items.items():
                record = await _read(scan.records, self._topic, source)
                if record is None:
                    # Compacted, as a newer one has come, which is announced in its turn.
                    self._feed.overtaken.pop(item_id, None)
                else:
                    await self._announce([record])


async def _read(read: Any, topic: str, source: Source) -> Any:
    """Give the record at a place; None where it is not there any more."""
    bounds = (source.offset, source.offset + 1)
    async for records in read(topic, source.partition, bounds):
        return next((record for record in records if record.offset == source.offset), None)
    return None
