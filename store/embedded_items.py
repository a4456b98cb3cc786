"""Items in process, on Qdrant's own engine (``qdrant-edge-py``). Why: ``docs/adr/0002``.

Every search reads all vectors that pass the filter, so answers are exact. The engine could build
a graph (``optimize``), but its bindings keep the interpreter's lock while they do: 5 s for 20,000
items, in which nothing else in the process runs, heartbeats to Kafka included. A search keeps it
too, for milliseconds: threads give order and a free loop between searches, not more of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from interest.errors import BadInput, InterestError, ServiceUnavailable
from interest.item import EncodedItem, ItemFilter, ItemQuery, ScoredItem
from store.points import (
    AVAILABLE,
    INDEXED,
    check_vectors,
    item_of,
    merge,
    next_limit,
    payload_of,
    point_id,
)

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard

_BATCH: Final = 512

T = TypeVar("T")


class EmbeddedItems:
    """The port ``ItemStore`` for one process; nothing survives it, the feed fills it again.

    Args:
        folder: a private one that does not exist yet; its owner removes it.
        dim: length of the vectors.
    """

    shared: Final = False

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder = folder
        self._dim = dim
        self._shard: EdgeShard | None = None
        # The engine is written by one thread, so that writes keep their order.
        self._writer = ThreadPoolExecutor(1, "items-writer")

    async def open(self) -> None:
        """Create the engine with its payload indexes; again is fine.

        Raises:
            ServiceUnavailable: the extra ``embedded`` is not installed, or the folder cannot be
                written.
        """
        await self._write(self._create)

    def _create(self) -> None:
        if self._shard is not None:
            return
        edge = _engine()
        self._folder.mkdir(parents=True, exist_ok=True)
        shard: EdgeShard = edge.EdgeShard.create(
            str(self._folder),
            edge.EdgeConfig(
                vectors=edge.EdgeVectorParams(size=self._dim, distance=edge.Distance.Dot),
                on_disk_payload=False,
                wal_enabled=False,  # it is filled from the feed, never recovered
            ),
        )
        types = edge.PayloadSchemaType
        kinds = {"keyword": types.Keyword, "float": types.Float}
        for field, kind in INDEXED.items():
            shard.update(edge.UpdateOperation.create_field_index(field, kinds[kind]))
        self._shard = shard

    @property
    def shard(self) -> EdgeShard:
        """The engine itself.

        Raises:
            ServiceUnavailable: it is not open.
        """
        if self._shard is None:
            raise ServiceUnavailable("the item index is not open")
        return self._shard

    async def _write(self, work: Callable[[], T]) -> T:
        def write() -> T:
            with _translated():
                return work()

        try:
            written = asyncio.get_running_loop().run_in_executor(self._writer, write)
        except RuntimeError as error:  # the executor takes no more
            raise ServiceUnavailable("the item index is closed") from error
        return await written

    async def _read(self, work: Callable[[], T]) -> T:
        def read() -> T:
            with _translated():
                return work()

        return await asyncio.to_thread(read)

    async def ping(self) -> None:
        """Return if the engine is open."""
        _ = self.shard

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        """Add or replace items; they are found when it returns.

        Raises:
            BadInput: a vector of another length, zero, or with NaN or infinity; nothing is stored.
        """
        check_vectors(items, self._dim)
        edge, shard = _engine(), self.shard

        def upsert(part: Sequence[EncodedItem]) -> None:
            points = [
                edge.Point(point_id(e.item.item_id), e.vector.tolist(), payload_of(e.item))
                for e in part
            ]
            shard.update(edge.UpdateOperation.upsert_points(points))

        for first in range(0, len(items), _BATCH):
            part = items[first : first + _BATCH]
            await self._write(lambda part=part: upsert(part))  # type: ignore[misc]

    async def remove(self, item_ids: Sequence[str]) -> None:
        """Remove items; unknown ids are fine."""
        edge, shard = _engine(), self.shard
        ids = [point_id(item_id) for item_id in item_ids]
        await self._write(lambda: shard.update(edge.UpdateOperation.delete_points(ids)))

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        """Read items by id; unknown ids are left out."""
        shard = self.shard
        found: dict[str, EncodedItem] = {}
        for first in range(0, len(item_ids), _BATCH):
            ids: list[Any] = [point_id(i) for i in item_ids[first : first + _BATCH]]
            records = await self._read(lambda ids=ids: shard.retrieve(ids, True, True))  # type: ignore[misc]
            for record in records:
                item = item_of(record.payload)
                vector = np.asarray(record.vector, np.float32)
                found[item.item_id] = EncodedItem(item=item, vector=vector)
        return found

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Find the nearest items, best first, ties by item id.

        Raises:
            BadInput: the query's vectors have another length.
        """
        if query.vectors.shape[1] != self._dim:
            raise BadInput(f"query of {query.vectors.shape[1]} dimensions, expected {self._dim}")
        shard = self.shard
        return await self._read(lambda: _search(shard, query))

    async def count(self) -> int:
        """Count the items."""
        edge, shard = _engine(), self.shard
        return await self._read(lambda: shard.count(edge.CountRequest(exact=True)))

    async def close(self) -> None:
        """Release the engine; again is fine."""
        shard, self._shard = self._shard, None
        if shard is not None:
            await self._write(shard.close)
        self._writer.shutdown(wait=False)


def _engine() -> Any:
    try:
        import qdrant_edge
    except ImportError as error:
        raise ServiceUnavailable(
            "the item engine is not installed: pip install 'interest-updater[embedded]', "
            "or set INTEREST_QDRANT_URL to a Qdrant server"
        ) from error
    return qdrant_edge


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except InterestError:
        raise
    except Exception as error:  # the engine raises nothing more special than this
        raise ServiceUnavailable(f"the item index in this process: {error}") from error


def _search(shard: EdgeShard, query: ItemQuery) -> list[ScoredItem]:
    edge = _engine()
    where = _filter(edge, query.filter, query.exclude)
    limit: int | None = query.k + 1
    while limit is not None:
        answers = shard.query_batch(
            edge.QueryBatchRequest(
                [
                    edge.QueryRequest(
                        limit=limit,
                        query=edge.Query.Nearest(vector.tolist()),
                        filter=where,
                        with_payload=True,
                    )
                    for vector in query.vectors
                ]
            )
        )
        limit = next_limit(([p.score for p in answer] for answer in answers), limit, query.k)
    return merge(([(item_of(p.payload), p.score) for p in answer] for answer in answers), query)


def _filter(edge: Any, where: ItemFilter, exclude: frozenset[str]) -> Any:
    must = [
        edge.FieldCondition(field, match=edge.MatchValue(value))
        for field, value in (
            ("categories", where.category),
            ("brand", where.brand),
            ("domain", where.domain),
            ("availability", AVAILABLE if where.only_available else None),
        )
        if value is not None
    ]
    if where.min_price is not None or where.max_price is not None:
        bounds = edge.RangeFloat(gte=where.min_price, lte=where.max_price)
        must.append(edge.FieldCondition("price", range=bounds))
    must_not = [edge.HasIdCondition({point_id(i) for i in exclude})] if exclude else []
    return edge.Filter(must=must, must_not=must_not)
