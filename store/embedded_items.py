"""Items in process, on Qdrant's own engine (``qdrant-edge-py``). Why: ``docs/adr/0002``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from interest.errors import BadInput, ServiceUnavailable
from interest.item import EncodedItem, ItemFilter, ItemQuery, ScoredItem
from store.points import AVAILABLE, INDEXED, check_vectors, item_of, merge, payload_of, point_id

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard

_BATCH: Final = 512
#: The graph is (re)built when so many points, and this part of all, were written since.
_OPTIMISE_AFTER: Final = 5_000
_OPTIMISE_SHARE: Final = 1.0

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
        self._written = 0
        # The engine is written by one thread; searches run beside it.
        self._writer = ThreadPoolExecutor(1, "items-writer")
        self._optimising: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Create the engine with its payload indexes; again is fine.

        Raises:
            ServiceUnavailable: the extra ``embedded`` is not installed.
        """
        if self._shard is None:
            self._shard = await self._write(self._create)

    def _create(self) -> EdgeShard:
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
        return shard

    @property
    def _open(self) -> EdgeShard:
        if self._shard is None:
            raise ServiceUnavailable("the item index is not open")
        return self._shard

    async def _write(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def ping(self) -> None:
        """Return if the engine is open."""
        _ = self._open

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        """Add or replace items; they are found when it returns."""
        check_vectors(items, self._dim)
        edge, shard = _engine(), self._open

        def upsert(part: Sequence[EncodedItem]) -> None:
            points = [
                edge.Point(point_id(e.item.item_id), e.vector.tolist(), payload_of(e.item))
                for e in part
            ]
            shard.update(edge.UpdateOperation.upsert_points(points))

        for first in range(0, len(items), _BATCH):
            part = items[first : first + _BATCH]
            await self._write(lambda part=part: upsert(part))  # type: ignore[misc]
        self._written += len(items)
        await self._maybe_optimise()

    async def _maybe_optimise(self) -> None:
        if self._optimising is not None and not self._optimising.done():
            return
        due = max(_OPTIMISE_AFTER, int(_OPTIMISE_SHARE * await self.count()))
        if self._written >= due:
            self._written = 0
            shard = self._open
            self._optimising = asyncio.ensure_future(self._write(lambda: _optimise(shard)))

    async def remove(self, item_ids: Sequence[str]) -> None:
        """Remove items; unknown ids are fine."""
        edge, shard = _engine(), self._open
        ids = [point_id(item_id) for item_id in item_ids]
        await self._write(lambda: shard.update(edge.UpdateOperation.delete_points(ids)))

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        """Read items by id; unknown ids are left out."""
        shard = self._open
        found: dict[str, EncodedItem] = {}
        for first in range(0, len(item_ids), _BATCH):
            ids: list[Any] = [point_id(i) for i in item_ids[first : first + _BATCH]]
            records = await asyncio.to_thread(shard.retrieve, ids, True, True)
            for record in records:
                item = item_of(record.payload)
                vector = np.asarray(record.vector, np.float32)
                found[item.item_id] = EncodedItem(item=item, vector=vector)
        return found

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Find the nearest items, best first, ties by item id."""
        if query.vectors.shape[1] != self._dim:
            raise BadInput(f"query of {query.vectors.shape[1]} dimensions, expected {self._dim}")
        shard = self._open
        return await asyncio.to_thread(_search, shard, query)

    async def count(self) -> int:
        """Count the items."""
        edge = _engine()
        n: int = await asyncio.to_thread(self._open.count, edge.CountRequest(exact=True))
        return n

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


def _optimise(shard: EdgeShard) -> None:
    shard.optimize()


def _search(shard: EdgeShard, query: ItemQuery) -> list[ScoredItem]:
    edge = _engine()
    where = _filter(edge, query.filter, query.exclude)
    answers = (
        shard.query(
            edge.QueryRequest(
                limit=query.k,
                query=edge.Query.Nearest(vector.tolist()),
                filter=where,
                with_payload=True,
            )
        )
        for vector in query.vectors
    )
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
