"""What the catalogue agent does: encode items, store them, announce them.

Catalogue messages reach one worker, the users who hold an item are on all; so an item is stored
first and announced on ``items-encoded`` after that, and the offset counts as read after both.

A vector follows from the text alone: an item that is stored with the same text keeps its vector,
so a new price, a catalogue that is loaded again and what is read again after a crash cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from interest import metrics as m
from interest.clock import Clock
from interest.errors import CorruptRecord, EncoderUnavailable, InvalidItem, ServiceUnavailable
from interest.item import EncodedItem, Item, decode_item, encoded_item_to_bytes
from interest.ports import ItemEncoder, ItemStore, Metrics, SparseEncoder
from interest.sparse import EMPTY, SparseVector
from streams.dead_letters import dead_letter
from streams.items_feed import Source, item_key
from streams.outbox import Outbox, Record, backoff_s
from streams.progress import Progress
from streams.topics import TopicNames
from streams.transport import Chunk

log = logging.getLogger(__name__)

#: Items encoded in one call: enough to fill batches of one length, few enough to be seen soon.
_SLICE: Final = 256


class Catalogue:
    """Turns chunks of ``catalogue`` into stored and announced items of one model."""

    def __init__(
        self,
        *,
        names: TopicNames,
        model_id: str,
        encoder: ItemEncoder,
        sparse: SparseEncoder | None = None,
        store: ItemStore,
        progress: Progress,
        outbox: Outbox,
        executor: Executor,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._names = names
        self._model_id = model_id
        self._encoder = encoder
        self._sparse = sparse
        self._store = store
        self._progress = progress
        self._outbox = outbox
        self._executor = executor
        self._clock = clock
        self._metrics = metrics
        #: Why the item store takes nothing at present; empty while it does.
        self.away = ""

    async def handle(self, chunk: Chunk) -> None:
        """Encode a chunk; when it returns, its items are stored and announced."""
        if not self._progress.take(chunk):
            return
        for first in range(0, len(chunk.records), _SLICE):
            records = chunk.records[first : first + _SLICE]
            await self.announce(records, chunk.generation)
            if not self._progress.advanced(chunk.tp, records[-1].offset + 1, chunk.lap):
                return

    async def announce(self, records: Sequence[Any], generation: int) -> None:
        """Store and announce the items of some records, unless the generation is over."""
        outgoing: list[Record] = []
        # The last record of an item within a slice stands for all before it.
        latest: dict[str, tuple[Any, Item | None]] = {}
        for record in records:
            try:
                item_id, item = _decode(record)
            except InvalidItem as error:
                outgoing.append(self._bury(record, error))
                continue
            latest[item_id] = (record, item)
        items = [(record, item) for record, item in latest.values() if item is not None]
        removed = [item_id for item_id, (_, item) in latest.items() if item is None]
        kept, fresh = await self._unchanged(items, generation)
        if generation != self._progress.generation:
            return  # it will be read again, here or elsewhere
        encoded, failed = await self._encode(fresh)
        outgoing.extend(failed)
        stored = [*kept, *encoded]
        await self._store_shared(stored, removed, generation)
        if generation != self._progress.generation:
            return  # the new owner may have announced something newer already
        announced = {e.item.item_id: encoded_item_to_bytes(e) for e in stored}
        outgoing.extend(
            Record(
                self._names.items_encoded,
                item_key(self._model_id, item_id),
                value,
                headers=Source.of(latest[item_id][0]).headers(),
            )
            for item_id, value in (announced | dict.fromkeys(removed)).items()
        )
        await self._outbox.send_all(outgoing)
        self._metrics.count(m.ITEMS, len(encoded))
        self._metrics.count(m.ITEMS_UNCHANGED, len(kept))

    def _bury(self, record: Any, error: InvalidItem) -> Record:
        self._metrics.count(m.DEAD_LETTERS, 1, error.reason)
        return dead_letter(self._names.dead_letters, record, error, self._clock())

    async def _encode(
        self, items: Sequence[tuple[Any, Item]]
    ) -> tuple[list[EncodedItem], list[Record]]:
        """Encode; an item that fails alone becomes a dead letter and the others succeed."""
        if not items:
            return [], []
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            try:
                matrix, beside = await loop.run_in_executor(
                    self._executor, self._encode_items, [item for _, item in items]
                )
                break
            except EncoderUnavailable as error:
                self._metrics.count(m.RETRIES, 1, "item-encoder")
                log.warning("the item encoder is away, trying again: %s", error)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
            except Exception as failure:
                if len(items) == 1:
                    log.exception("an item cannot be encoded", exc_info=failure)
                    reason = InvalidItem("encoder_failed", f"{type(failure).__name__}: {failure}")
                    return [], [self._bury(items[0][0], reason)]
                middle = len(items) // 2
                left, right = await self._encode(items[:middle]), await self._encode(items[middle:])
                return left[0] + right[0], left[1] + right[1]
        encoded: list[EncodedItem] = []
        buried: list[Record] = []
        for (record, item), row, sparse in zip(items, matrix, beside, strict=True):
            if np.isfinite(row).all() and row.any():
                encoded.append(EncodedItem(item=item, vector=row, sparse=sparse))
            else:
                reason = InvalidItem("no_direction", "its text gives no usable vector")
                buried.append(self._bury(record, reason))
        return encoded, buried

    def _encode_items(
        self, items: Sequence[Item]
    ) -> tuple[NDArray[np.float32], Sequence[SparseVector]]:
        matrix = self._encoder.encode_items(items)  # (N, D)
        if self._sparse is None:
            return matrix, [EMPTY] * len(items)
        return matrix, self._sparse.encode_items(items)

    async def _unchanged(
        self, items: Sequence[tuple[Any, Item]], generation: int
    ) -> tuple[list[EncodedItem], list[tuple[Any, Item]]]:
        """Split into items whose text is stored, with its vector, and items to encode.

        Even where the whole item is equal it is announced: a worker may have died in between.
        """
        held: dict[str, EncodedItem] = {}

        async def fetch() -> None:
            held.update(await self._store.fetch([item.item_id for _, item in items]))

        if items:
            try:
                await self._patiently(fetch, generation)
            except CorruptRecord as error:
                log.warning("a stored item cannot be read, its neighbours are encoded: %s", error)
        kept: list[EncodedItem] = []
        fresh: list[tuple[Any, Item]] = []
        for record, item in items:
            stored = held.get(item.item_id)
            if stored is not None and stored.item.text == item.text:
                kept.append(EncodedItem(item=item, vector=stored.vector, sparse=stored.sparse))
            else:
                fresh.append((record, item))
        return kept, fresh

    async def _store_shared(
        self, encoded: Sequence[EncodedItem], removed: Sequence[str], generation: int
    ) -> None:
        if not self._store.shared:
            return  # each process fills its own index from the feed

        async def store() -> None:
            if encoded:
                await self._store.upsert(encoded)
            if removed:
                await self._store.remove(removed)

        await self._patiently(store, generation)

    async def _patiently(self, ask: Callable[[], Awaitable[None]], generation: int) -> None:
        """Ask the item store until it answers, or the partition may be another worker's."""
        attempt = 0
        while generation == self._progress.generation:
            try:
                await ask()
                break
            except ServiceUnavailable as error:
                self.away = str(error)
                self._metrics.count(m.RETRIES, 1, "items")
                log.warning("the item store is away, trying again: %s", error)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
        self.away = ""


def _decode(record: Any) -> tuple[str, Item | None]:
    key = record.key
    if key is not None:
        try:
            key = key.decode()
        except UnicodeDecodeError as error:
            raise InvalidItem("key_mismatch", f"the key is not UTF-8: {error}") from error
    if record.value is None:
        if not key:
            raise InvalidItem("null_value", "a removal needs the item_id as key")
        return key, None
    item = decode_item(record.value)
    if key is not None and key != item.item_id:
        raise InvalidItem("key_mismatch", f"key {key[:64]!r} is not item_id {item.item_id!r}")
    return item.item_id, item
