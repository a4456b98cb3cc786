"""One subject of the retrieval benchmark, filled and asked in this process."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.item_space import N_CATEGORIES, encoded_items, query_vectors
from benchmarks.retrieval_subjects import (
    Float32Scan,
    Searched,
    ServerCollection,
    Vectors,
    opened,
)
from interest.item import ItemFilter, ItemQuery

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
