"""Engines for items in process, beside each other: what ADR 2 rests on.

    python -m benchmarks retrieval [--items 20000] [--engines …]

Every engine runs in a process of its own, so that its memory is its own. Searches go one after
another from one thread; a row says what a caller would see. Recall compares with the exhaustive
answer. The stall is the longest time for which another thread of the process could not run while
the graph was built: a call that keeps the interpreter's lock also stops the event loop, and with
it the heartbeats to Kafka.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import psutil

from benchmarks.item_space import (
    N_CATEGORIES,
    encoded_items,
    item_vectors,
    query_vectors,
    title_vectors,
)
from benchmarks.results import Measurement, Report
from interest.item import ItemFilter, ItemQuery
from interest.ports import ItemStore
from store.embedded_items import EmbeddedItems
from store.matching import best_scores
from store.qdrant_items import QdrantItems

NAME: Final = "retrieval"
_TARGET_ITEMS: Final = 100_000
#: The product's choice, the same engine with its graph built, and qdrant-client's local mode.
ENGINES: Final = ("edge scan", "edge graph", "client :memory:")
_EXCLUDED: Final = frozenset(f"item-{i}" for i in range(50))
_KINDS: Final = ("plain", "category", "50 excluded")
#: A measurement ends after so many calls or so many seconds, whichever comes first.
_CALLS: Final = 300
_SECONDS: Final = 3.0
#: Percentiles are medians of so many measurements.
_REPEATS: Final = 3


class Row(msgspec.Struct, frozen=True):
    """One engine: property → (value, unit)."""

    values: dict[str, tuple[float, str]]


def run(arguments: Sequence[str]) -> Report:
    """Measure every engine at one size."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    options = parser.parse_args(arguments)
    n: int = options.items
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory(prefix="bench-retrieval-") as folder:
        path = Path(folder) / "vectors.npy"
        np.save(path, item_vectors(title_vectors(), n))
        for engine in options.engines:
            print(f"{NAME}: {engine}, {n:,} items", file=sys.stderr)
            command = [sys.executable, "-m", "benchmarks.retrieval_engines", engine, str(path)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            rows[engine] = msgspec.json.decode(done.stdout, type=Row)
    return _report(rows, n)


def _report(rows: dict[str, Row], n: int) -> Report:
    ours = rows.get("edge scan")
    measurements: list[Measurement] = []
    for engine, row in rows.items():
        for name, (value, unit) in row.values.items():
            against = ours.values.get(name) if ours and row is not ours and unit == "ms" else None
            measurements.append(
                Measurement(
                    benchmark=NAME,
                    subject=f"{engine}, {n:,} items",
                    name=name,
                    unit=unit,
                    value=value,
                    ratio=value / against[0] if against else None,
                    ratio_to="edge scan" if against else "",
                )
            )
    p99 = ours.values["plain p99"][0] if ours else None
    held_to = {"process": p99} if p99 is not None and n == _TARGET_ITEMS else {}
    return Report(tuple(measurements), held_to)


def longest_stall_s(work: Callable[[], object]) -> float:
    """Do ``work`` here; give the longest time for which another thread did not run."""
    gaps: list[float] = [0.0]
    done = threading.Event()

    def beat() -> None:
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.001)
            gaps.append(time.perf_counter() - last)
            last = time.perf_counter()

    thread = threading.Thread(target=beat)
    thread.start()
    work()
    done.set()
    thread.join()
    return max(gaps)


async def open_engine(engine: str, folder: Path, dim: int) -> ItemStore:
    """Open an engine by its name in the table, empty."""
    store: ItemStore
    if engine.startswith("edge"):
        store = EmbeddedItems(folder / "edge", dim)
    else:
        from qdrant_client import AsyncQdrantClient

        warnings.filterwarnings("ignore", "Payload indexes have no effect")
        warnings.filterwarnings("ignore", "Local mode is not recommended")
        store = QdrantItems("local", "items", dim, client=AsyncQdrantClient(":memory:"))
    await store.open()
    return store


async def measure(engine: str, path: Path) -> Row:
    """Fill one engine and ask it."""
    vectors = np.load(path)
    items = encoded_items(vectors)
    values: dict[str, tuple[float, str]] = {}
    process = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="bench-engine-") as folder:
        before = process.memory_info().rss
        started = time.perf_counter()
        store = await open_engine(engine, Path(folder), vectors.shape[1])
        await store.upsert(items)
        values["load"] = (time.perf_counter() - started, "s")
        if engine == "edge graph":
            assert isinstance(store, EmbeddedItems)
            started = time.perf_counter()
            values["stall while building"] = (longest_stall_s(store.shard.optimize), "s")
            values["build"] = (time.perf_counter() - started, "s")
        values["resident memory"] = ((process.memory_info().rss - before) / 2**20, "MiB")
        for kind in _KINDS:
            taken = [await _searches(store, vectors, kind) for _ in range(_REPEATS)]
            for name, q in (("p50", 50), ("p99", 99)):
                ms = [float(np.percentile(times, q)) for times, _ in taken]
                values[f"{kind} {name}"] = (statistics.median(ms), "ms")
            values[f"{kind} recall@10"] = (taken[0][1], "")
        started = time.perf_counter()
        for encoded in items[:_CALLS]:
            await store.upsert([encoded])
        values["upsert of one"] = ((time.perf_counter() - started) / _CALLS * 1e3, "ms")
        await store.close()
    return Row(values)


async def _searches(
    store: ItemStore, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]], kind: str
) -> tuple[list[float], float]:
    """Search until there is enough; give the times in ms, and the mean recall."""
    where = ItemFilter(category="category-3" if kind == "category" else None)
    exclude = _EXCLUDED if kind == "50 excluded" else frozenset()
    hidden = np.zeros(len(vectors), bool)
    hidden[: len(exclude)] = True
    if kind == "category":
        hidden |= np.arange(len(vectors)) % N_CATEGORIES != 3
    queries = query_vectors(vectors, _CALLS)
    taken: list[float] = []
    hits: list[float] = []
    end = time.perf_counter() + _SECONDS
    for query in queries:
        if time.perf_counter() > end:
            break
        asked = ItemQuery(vectors=query[np.newaxis], k=10, exclude=exclude, filter=where)
        started = time.perf_counter()
        found = await store.search(asked)
        taken.append((time.perf_counter() - started) * 1e3)
        scores = best_scores(asked.vectors, vectors)
        scores[hidden] = -2
        worst = np.partition(scores, -10)[-10:].min()
        # By score, so that two items that tie are both right.
        hits.append(sum(scored.score >= worst - 1e-5 for scored in found) / 10)
    return taken, float(np.mean(hits))


def main() -> None:
    """Measure one engine in this process; for :func:`run`."""
    engine, path = sys.argv[1:]
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(measure(engine, Path(path)))))


if __name__ == "__main__":
    main()
