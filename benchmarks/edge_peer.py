"""The engine of the Qdrant server in process (``qdrant-edge-py``): the peer of our scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interest.item import EncodedItem, ItemQuery, ScoredItem
from store.points import AVAILABLE, INDEXED, item_of, payload_of, point_id


class EdgePeer:
    """Its exact scan, called as its documentation does; it keeps the interpreter's lock.

    Args:
        folder: a private one that does not exist yet.

    Raises:
        ImportError: it is not installed.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        import qdrant_edge

        self._edge: Any = qdrant_edge
        folder.mkdir()
        self._shard = self._edge.EdgeShard.create(
            str(folder),
            self._edge.EdgeConfig(
                vectors=self._edge.EdgeVectorParams(size=dim, distance=self._edge.Distance.Dot),
                on_disk_payload=False,
                wal_enabled=False,
            ),
        )
        types = self._edge.PayloadSchemaType
        kinds = {"keyword": types.Keyword, "float": types.Float}
        for field, kind in INDEXED.items():
            self._update("create_field_index", field, kinds[kind])

    def _update(self, operation: str, *arguments: object) -> None:
        self._shard.update(getattr(self._edge.UpdateOperation, operation)(*arguments))

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        """Add or replace items."""
        points = [
            self._edge.Point(point_id(e.item.item_id), e.vector.tolist(), payload_of(e.item))
            for e in items
        ]
        self._update("upsert_points", points)

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Find the items nearest to the one vector of the query; only category and exclusions."""
        edge = self._edge
        wanted = {"availability": AVAILABLE, "categories": query.filter.category}
        where = edge.Filter(
            must=[
                edge.FieldCondition(field, match=edge.MatchValue(value))
                for field, value in wanted.items()
                if value is not None
            ],
            must_not=[edge.HasIdCondition({point_id(i) for i in query.exclude})],
        )
        request = edge.QueryRequest(
            limit=query.k,
            query=edge.Query.Nearest(query.vectors[0].tolist()),
            filter=where,
            with_payload=True,
        )
        found = self._shard.query(request)
        return [ScoredItem(item=item_of(p.payload), score=p.score) for p in found]

    async def close(self) -> None:
        """Release it."""
        self._shard.close()
