"""Moving windows between the partitions of the changelog, for :mod:`streams.grow`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interest.errors import CorruptRecord
from interest.metrics import NoMetrics
from interest.partition import partition_of
from interest.ports import Sealer
from interest.sealing import IN_THE_CLEAR
from interest.settings import Settings
from interest.vector import Token
from streams.outbox import Outbox, Record
from streams.scan import TopicScan, open_scan
from streams.topics import TopicNames
from streams.window_records import MARKER_KEY, Held, Tombstone, WindowRecords

log = logging.getLogger(__name__)

_BATCH: Final = 500


class Moved(msgspec.Struct, frozen=True):
    """How much was moved, or copied to every partition."""

    n_windows: int
    n_markers: int


async def move_windows(settings: Settings, n: int, sealer: Sealer = IN_THE_CLEAR) -> Moved:
    """Bring every window to the partition that is its home among ``n``.

    Windows keep their bytes, headers and tokens. Markers of forgotten people go to every
    partition, since the home of a person cannot be told from the marker. Memory holds the
    windows of one partition, as that of a worker does.

    Raises:
        WrongKey: a window is encrypted with a key that is not there; nothing of it is moved.
    """
    outbox = Outbox(settings, NoMetrics())
    await outbox.start()
    try:
        async with open_scan(settings) as scan:
            topic = TopicNames.of(settings).windows
            mover = _Mover(topic, WindowRecords(topic, sealer), n, scan, outbox)
            await mover.run()
    finally:
        await outbox.stop()
    return Moved(mover.n_windows, mover.n_markers)


class _Mover:
    """Moves windows between the partitions of the changelog."""

    def __init__(
        self, topic: str, records: WindowRecords, n: int, scan: TopicScan, outbox: Outbox
    ) -> None:
        self._topic = topic
        self._records = records
        self._n = n
        self._scan = scan
        self._outbox = outbox
        #: Tombstones that lie on the home of their subject: what is moved there must be above.
        self._gone: dict[bytes, Token] = {}
        self.n_windows = 0
        self.n_markers = 0

    async def run(self) -> None:
        numbers = await self._scan.partitions(self._topic)
        for number in numbers:
            for key, (token, _) in (await self._newest(number, tombstones=True)).items():
                if self._home(key) == number:
                    self._gone[key] = token
        for number in numbers:
            newest = await self._newest(number, tombstones=False)
            keys = list(newest)
            for first in range(0, len(keys), _BATCH):
                await self._move(number, {key: newest[key] for key in keys[first : first + _BATCH]})

    def _home(self, key: bytes) -> int | None:
        """Give a subject's partition; None for a marker, whose subject is not known."""
        return None if key.startswith(MARKER_KEY) else partition_of(key.decode(), self._n)

    async def _newest(self, number: int, *, tombstones: bool) -> dict[bytes, tuple[Token, Any]]:
        """Give the record of each key that recovery would believe: the highest token's.

        Args:
            tombstones: give those that are removed, else those that are there.
        """
        newest: dict[bytes, tuple[Token, Any]] = {}
        bounds = await self._scan.bounds(self._topic, number)
        async for records in self._scan.records(self._topic, number, bounds):
            for record in records:
                try:
                    token = self._records.read(record).token
                except CorruptRecord as error:
                    log.error("changelog %d/%d stays: %s", number, record.offset, error)
                    continue
                held = newest.get(record.key)
                if held is None or _rank(token, record) >= _rank(*held):
                    newest[record.key] = (token, record)
        return {
            key: (token, record)
            for key, (token, record) in newest.items()
            if (record.value is None) == tombstones
        }

    async def _move(self, number: int, entries: Mapping[bytes, tuple[Token, Any]]) -> None:
        copies: list[Record] = []
        tombstones: list[Record] = []
        for key, (token, record) in entries.items():
            home = self._home(key)
            if home is None:
                others = [other for other in range(self._n) if other != number]
                copies.extend(self._copy(record, other) for other in others)
                self.n_markers += 1
            elif home != number:
                gone = self._gone.get(key)
                if gone is None or gone < token:
                    copies.append(self._copy(record, home))
                elif gone == token:
                    copies.append(self._above(record, home, gone))
                # Else it is what a zombie left here of a window that ended at its home.
                tombstones.append(self._records.tombstone(number, Tombstone(key, token)))
                self.n_windows += 1
        await self._outbox.send_all(copies)
        await self._outbox.send_all(tombstones)

    def _copy(self, record: Any, partition: int) -> Record:
        return Record(
            self._topic, record.key, record.value, partition=partition,
            headers=tuple((name, value or b"") for name, value in record.headers),
        )  # fmt: skip

    def _above(self, record: Any, home: int, gone: Token) -> Record:
        """Copy a window to where it was moved away from before, above the tombstone there.

        The content is the same; the higher revision has its vector encoded once more.
        """
        held = self._records.read(record)
        assert isinstance(held, Held)
        window = msgspec.structs.replace(held.window, revision=gone.revision + 1, era=gone.era)
        held.window, held.generation = window, gone.generation
        return self._records.window(home, held)


def _rank(token: Token, record: Any) -> tuple[Token, bool]:
    """Order records as recovery does: of equal tokens the tombstone counts."""
    return (token, record.value is None)
