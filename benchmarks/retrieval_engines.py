"""Engines for items in process, beside each other: what ADR 2 rests on.

    python -P benchmarks/retrieval_engines.py [--items 20000 100000] [--dim 384]

Every engine runs in a process of its own, so that its memory is its own. Searches go one after
another from one thread; a row says what a caller would see. ``recall`` compares with the
exhaustive answer. ``stall`` is the longest time for which another thread of the process could
not run while the index was built: a call that keeps the interpreter's lock also stops the event
loop, and with it the heartbeats to Kafka.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from interest.item import ANY_ITEM, EncodedItem, Item, ItemFilter, ItemQuery, unit
from interest.ports import ItemStore
from store.embedded_items import EmbeddedItems
from store.matching import best_scores
from store.qdrant_items import QdrantItems

ENGINES: Final = ("edge scan", "edge graph", "client :memory:", "client folder")
_CATEGORIES: Final = 20
_EXCLUDED: Final = 50
#: A measurement ends after so many calls or so many seconds, whichever comes first.
_CALLS: Final = 300
_SECONDS: Final = 12.0
_SLOW_LIMIT: Final = 20_000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table; times in ms unless the name says otherwise."""

    engine: str
    n: int
    load_s: float
    build_s: float
    stall_ms: float
    memory_mb: float
    top10: tuple[float, float, int]
    filtered: tuple[float, float, int]
    upsert: tuple[float, float, int]
    recall: float
    filtered_recall: float


def make_items(n: int, dim: int) -> tuple[list[EncodedItem], NDArray[np.float32]]:
    """Give items around 500 topics, as texts of a shop lie; (N, D) unit rows."""
    rng = np.random.default_rng(1)
    topics = rng.normal(size=(500, dim))
    vectors = unit(topics[rng.integers(500, size=n)] + rng.normal(size=(n, dim)))
    items = [
        EncodedItem(
            item=Item(
                item_id=f"item-{i}",
                title=f"the title of item {i}",
                categories=(f"category-{i % _CATEGORIES}",),
                price=float(i % 100),
            ),
            vector=vectors[i],
        )
        for i in range(n)
    ]
    return items, vectors


async def timed(call: Callable[[int], Awaitable[Any]]) -> tuple[float, float, int]:
    """Call until there is enough; give p50 and p99 in ms, and how many calls they rest on."""
    taken: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(taken) < _CALLS and time.perf_counter() < end:
        started = time.perf_counter()
        await call(len(taken))
        taken.append((time.perf_counter() - started) * 1e3)
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99)), len(taken)


def longest_stall_ms(work: Callable[[], object]) -> float:
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
    return max(gaps) * 1e3


async def open_engine(engine: str, folder: Path, dim: int) -> ItemStore:
    """Open an engine by its name in the table, empty."""
    store: ItemStore
    if engine.startswith("edge"):
        store = EmbeddedItems(folder / "edge", dim)
    else:
        from qdrant_client import AsyncQdrantClient

        warnings.filterwarnings("ignore", "Payload indexes have no effect")
        warnings.filterwarnings("ignore", "Local mode is not recommended")
        client = (
            AsyncQdrantClient(":memory:")
            if engine == "client :memory:"
            else AsyncQdrantClient(path=str(folder / "client"))
        )
        store = QdrantItems("local", "items", dim, client=client)
    await store.open()
    return store


async def measure(engine: str, n: int, dim: int) -> Row:
    """Fill one engine and ask it."""
    items, vectors = make_items(n, dim)
    rng = np.random.default_rng(2)
    near = unit(vectors[rng.integers(n, size=_CALLS)] + rng.normal(size=(_CALLS, dim)) * 0.03)
    category = np.arange(n) % _CATEGORIES == 3
    hits: dict[bool, list[float]] = {False: [], True: []}

    async def search(i: int, narrow: bool) -> float:
        exclude = frozenset(f"item-{j}" for j in range(3, 3 + _EXCLUDED * 20, 20))
        query = ItemQuery(
            vectors=near[i : i + 1],
            k=10,
            filter=ItemFilter(category="category-3") if narrow else ANY_ITEM,
            exclude=exclude if narrow else frozenset(),
        )
        started = time.perf_counter()
        found = await store.search(query)
        took = time.perf_counter() - started
        scores = best_scores(query.vectors, vectors)
        if narrow:
            scores[~category] = -2
            scores[[int(item_id[5:]) for item_id in exclude]] = -2
        best = np.sort(scores)[-10:].min()
        # By score, so that two items that tie are both right.
        hits[narrow].append(sum(s.score >= best - 1e-5 for s in found) / 10)
        return took

    async def searches(narrow: bool) -> tuple[float, float, int]:
        taken: list[float] = []
        end = time.perf_counter() + _SECONDS
        while len(taken) < _CALLS and time.perf_counter() < end:
            taken.append(await search(len(taken), narrow) * 1e3)
        return float(np.percentile(taken, 50)), float(np.percentile(taken, 99)), len(taken)

    process = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="retrieval-engines-") as folder:
        before = process.memory_info().rss
        started = time.perf_counter()
        store = await open_engine(engine, Path(folder), dim)
        await store.upsert(items)
        load_s = time.perf_counter() - started
        build_s, stall_ms = 0.0, 0.0
        if engine == "edge graph":
            assert isinstance(store, EmbeddedItems)
            started = time.perf_counter()
            stall_ms = longest_stall_ms(store.shard.optimize)
            build_s = time.perf_counter() - started
        row = Row(
            engine=engine,
            n=n,
            load_s=load_s,
            build_s=build_s,
            stall_ms=stall_ms,
            memory_mb=(process.memory_info().rss - before) / 2**20,
            top10=await searches(False),
            filtered=await searches(True),
            upsert=await timed(lambda i: store.upsert([items[i]])),
            recall=float(np.mean(hits[False])),
            filtered_recall=float(np.mean(hits[True])),
        )
        await store.close()
    return row


def show(rows: list[Row]) -> None:
    """Print the table, in Markdown."""

    def pair(values: tuple[float, float, int]) -> str:
        return f"{values[0]:.2f} / {values[1]:.2f} ({values[2]})"

    print(
        "\n| engine | items | load s | build s (stall s) | memory MB | top 10, p50 / p99 ms (calls)"
        " | with filter and 50 excluded | upsert of one | recall, filtered |\n" + "|---" * 9 + "|"
    )
    for r in rows:
        build = f"{r.build_s:.1f} ({r.stall_ms / 1e3:.1f})" if r.build_s else "–"
        print(
            f"| {r.engine} | {r.n:,} | {r.load_s:.1f} | {build} | {r.memory_mb:.0f} "
            f"| {pair(r.top10)} | {pair(r.filtered)} | {pair(r.upsert)} "
            f"| {r.recall:.3f}, {r.filtered_recall:.3f} |"
        )


def main() -> None:
    """Measure every engine at every size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        row = asyncio.run(measure(options.engines[0], options.items[0], options.dim))
        sys.stdout.buffer.write(msgspec.json.encode(row))
        return
    rows: list[Row] = []
    for n in options.items:
        for engine in options.engines:
            if engine == "client folder" and n > _SLOW_LIMIT:
                print(f"{engine}: left out above {_SLOW_LIMIT:,} items, it searches as :memory:")
                continue
            command = [
                sys.executable, "-P", __file__, "--one", "--engines", engine,
                "--items", str(n), "--dim", str(options.dim),
            ]  # fmt: skip
            print(f"{engine}, {n:,} items of {options.dim} dimensions …", flush=True)
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            rows.append(msgspec.json.decode(done.stdout, type=Row))
    show(rows)


if __name__ == "__main__":
    main()
