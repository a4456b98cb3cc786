"""One item store of the retrieval benchmark, filled and asked in this process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.edge_peer import EdgePeer
from benchmarks.item_space import N_CATEGORIES, encoded_items, query_vectors
from interest.item import EncodedItem, ItemFilter, ItemQuery, ScoredItem
from store.embedded_items import EmbeddedItems
from store.qdrant_items import QdrantItems

OURS: Final = "in process"
SUBJECTS: Final = (
    OURS,
    "float32 scan",
    "qdrant-edge",
    "Qdrant server, HTTP",
    "Qdrant server, gRPC",
)
EXCLUDED: Final = tuple(range(50))
CATEGORY: Final = 3
_FILLED: Final = 512
_AT_ONCE: Final = 4
#: Items that change at a time while a caller searches, and the pause between.
_CHANGED: Final = 20
_CHANGED_EVERY_S: Final = 0.02
_RUNS: Final = 3
#: A run ends after so long, whatever its calls.
_RUN_S: Final = 5.0
_INDEXED_S: Final = 240.0

Vectors = NDArray[np.float32]


class Sizes(NamedTuple):
    """The file of the vectors, and the calls of a run."""

    path: Path
    calls: int


class Kind(NamedTuple):
    """What a query asks beside its vector."""

    name: str
    in_category: bool
    excludes: bool

    def query(self, vector: Vectors) -> ItemQuery:
        """Ask for 10 items."""
        exclude = frozenset(f"item-{i}" for i in EXCLUDED) if self.excludes else frozenset()
        where = ItemFilter(category=f"category-{CATEGORY}" if self.in_category else None)
        return ItemQuery(vectors=vector[np.newaxis], k=10, exclude=exclude, filter=where)

    def shown(self, n: int) -> NDArray[np.bool_]:
        """Tell which items may be found."""
        shown = np.ones(n, np.bool_)
        if self.in_category:
            shown &= np.arange(n) % N_CATEGORIES == CATEGORY
        if self.excludes:
            shown[list(EXCLUDED)] = False
        return shown


KINDS: Final = (
    Kind("all items", in_category=False, excludes=False),
    Kind("50 excluded", in_category=False, excludes=True),
    Kind("one category", in_category=True, excludes=False),
    Kind("one category, 50 excluded", in_category=True, excludes=True),
)


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


async def measured(subject: str, sizes: Sizes) -> dict[str, list[float]]:
    """Fill one and ask it; property, with its unit in brackets → runs."""
    vectors: Vectors = np.load(sizes.path)
    row: dict[str, list[float]] = {}
    process = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="bench-subject-") as folder:
        before = process.memory_info().rss
        store = await opened(subject, vectors, Path(folder))
        began = time.perf_counter()
        for first in range(0, len(vectors), _FILLED):
            await store.upsert(encoded_items(vectors[first : first + _FILLED], first))
        row["load (s)"] = [time.perf_counter() - began]
        if isinstance(store, ServerCollection):
            await store.indexed()
        else:
            held = process.memory_info().rss - before
            if isinstance(store, Float32Scan):
                held += vectors.nbytes
            row["memory of an item (bytes)"] = [held / len(vectors)]
        for kind in KINDS:
            await _search_runs(store, kind, vectors, sizes.calls, row)
        busiest = KINDS[-1]
        if isinstance(store, Float32Scan):
            return row
        changing = asyncio.create_task(_change(store, vectors))
        for _ in range(_RUNS):
            times = await _times(store, busiest, query_vectors(vectors, sizes.calls), 1)
            _percentiles(row, f"{busiest.name}, while items change", times)
        changing.cancel()
        with suppress(asyncio.CancelledError):
            await changing
        await store.close()
    return row


async def _search_runs(
    store: Searched, kind: Kind, vectors: Vectors, calls: int, row: dict[str, list[float]]
) -> None:
    queries = query_vectors(vectors, calls)
    row[f"{kind.name}, recall@10 ()"] = [await _recall(store, kind, vectors, queries[:100])]
    for _ in range(_RUNS):
        busy = time.process_time()
        times = await _times(store, kind, queries, 1)
        busy = (time.process_time() - busy) * 1e3 / len(times)
        _percentiles(row, kind.name, times)
        row.setdefault(f"{kind.name}, processor time (ms)", []).append(busy)
        if kind.excludes:
            _percentiles(
                row,
                f"{kind.name}, {_AT_ONCE} at once",
                await _times(store, kind, queries, _AT_ONCE),
            )


def _percentiles(row: dict[str, list[float]], name: str, times_ms: Sequence[float]) -> None:
    for q in (50, 99):
        row.setdefault(f"{name}, p{q} (ms)", []).append(float(np.percentile(times_ms, q)))


async def _times(store: Searched, kind: Kind, queries: Vectors, callers: int) -> list[float]:
    """Search with each query, by so many callers; give how long each waited, ms."""
    taken: list[float] = []
    waiting = iter(queries)
    end = time.perf_counter() + _RUN_S

    async def call() -> None:
        for vector in waiting:
            if time.perf_counter() > end:
                return
            query = kind.query(vector)
            began = time.perf_counter()
            await store.search(query)
            taken.append((time.perf_counter() - began) * 1e3)

    await asyncio.gather(*(call() for _ in range(callers)))
    return taken


async def _recall(store: Searched, kind: Kind, vectors: Vectors, queries: Vectors) -> float:
    shown = kind.shown(len(vectors))
    found_of: list[float] = []
    for vector in queries:
        found = await store.search(kind.query(vector))
        scores = np.where(shown, vectors @ vector, -2)
        worst = np.partition(scores, -10)[-10]
        # By score, so that two items that tie are both right.
        found_of.append(sum(scored.score >= worst - 1e-5 for scored in found) / 10)
    return float(np.mean(found_of))


async def _change(store: Searched, vectors: Vectors) -> None:
    """Give items their vectors again, some at a time, until cancelled."""
    while True:
        for first in range(0, len(vectors) - _CHANGED, _CHANGED):
            await store.upsert(encoded_items(vectors[first : first + _CHANGED], first))
            await asyncio.sleep(_CHANGED_EVERY_S)


def main() -> None:
    """Measure one subject; for :mod:`benchmarks.retrieval`."""
    subject, path, calls = sys.argv[1:]
    print(json.dumps(asyncio.run(measured(subject, Sizes(Path(path), int(calls))))))


if __name__ == "__main__":
    main()
