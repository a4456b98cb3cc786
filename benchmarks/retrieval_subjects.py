"""The item stores of the retrieval benchmark: ours, its peers, and a Qdrant server."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.edge_peer import EdgePeer
from benchmarks.item_space import N_CATEGORIES
from interest.item import EncodedItem, ItemQuery, ScoredItem
from store.embedded_items import EmbeddedItems
from store.qdrant_items import QdrantItems

OURS: Final = "in process"
SUBJECTS: Final = (
    OURS, "float32 scan", "qdrant-edge", "Qdrant server, HTTP", "Qdrant server, gRPC",
)  # fmt: skip
_INDEXED_S: Final = 240.0

Vectors = NDArray[np.float32]


class Searched(Protocol):
    """What is asked of a subject."""

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        """Add or replace items."""

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Find the nearest."""

    async def close(self) -> None:
        """End it."""


class Float32Scan:
    """All dot products by BLAS: what a few lines of numpy do."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._categories = np.arange(len(vectors)) % N_CATEGORIES
        self._items: list[EncodedItem] = []

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        """Keep the items; the vectors are there."""
        self._items.extend(items)

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Score all, hide some, take ten."""
        scores = self._vectors @ query.vectors[0]
        if query.filter.category is not None:
            scores[self._categories != int(query.filter.category.rpartition("-")[2])] = -np.inf
        scores[[int(item_id.rpartition("-")[2]) for item_id in query.exclude]] = -np.inf
        best = np.argpartition(-scores, query.k)[: query.k]
        return [
            ScoredItem(item=self._items[i].item, score=float(scores[i]))
            for i in best[np.argsort(-scores[best])].tolist()
        ]

    async def close(self) -> None:
        """Nothing to end."""


class ServerCollection:
    """A collection of its own on the Qdrant server, by the product's adapter."""

    def __init__(self, dim: int, *, grpc: bool) -> None:
        self._name = f"bench-{uuid.uuid4().hex[:12]}"
        self._url, self._key = os.environ["QDRANT_URL"], os.environ.get("QDRANT_API_KEY", "")
        port = int(os.environ["QDRANT_GRPC_PORT"]) if grpc else 0
        self._store = QdrantItems(
            self._url, self._name, dim, api_key=self._key, grpc_port=port
        )  # fmt: skip
        self.upsert = self._store.upsert
        self.search = self._store.search
        self.open = self._store.open

    def _client(self) -> Any:
        from qdrant_client import AsyncQdrantClient

        return AsyncQdrantClient(self._url, api_key=self._key or None)

    async def indexed(self) -> None:
        """Return when the server has built its graph.

        Raises:
            TimeoutError: it has not.
        """
        client = self._client()
        deadline = time.monotonic() + _INDEXED_S
        # It says green also before it has begun: only the second time counts.
        n_green = 0
        while n_green < 2:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Qdrant has not indexed after {_INDEXED_S:g} s")
            await asyncio.sleep(1)
            info = await client.get_collection(self._name)
            n_green = n_green + 1 if info.status == "green" else 0
        await client.close()

    async def close(self) -> None:
        """Remove the collection."""
        client = self._client()
        await client.delete_collection(self._name)
        await client.close()
        await self._store.close()


async def opened(subject: str, vectors: Vectors, folder: Path) -> Searched:
    """Open a subject, empty."""
    dim = vectors.shape[1]
    if subject == OURS:
        ours = EmbeddedItems(dim)
        await ours.open()
        return ours
    if subject == "float32 scan":
        return Float32Scan(vectors)
    if subject == "qdrant-edge":
        return EdgePeer(folder / "edge", dim)
    server = ServerCollection(dim, grpc=subject.endswith("gRPC"))
    await server.open()
    return server
