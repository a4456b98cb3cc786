"""What one user costs on the way from dirty to readable, and one request on the way back.

    python -m benchmarks.path_costs

µs of processor time of the thread that does it, the best of several rounds: other work on the
machine adds to time on the clock and little to this. Windows of 50 events, vectors of 384 numbers,
a real Redis.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.encryption import vector_update
from benchmarks.event_log import N_ITEMS, N_USERS, full_windows
from encoder.decay import DecayUserEncoder
from interest.bundle import DecayParameters, LiveModel
from interest.encoded_items import EncodedItems
from interest.item import EncodedItem, Item, ItemQuery, ScoredItem, unit
from interest.window import BehaviourWindow
from interest_api.app import create_app
from interest_api.metrics import PrometheusMetrics
from interest_cli.services import EmbeddedServices
from store.recommend import StoreRecommender
from store.redis_vectors import RedisUserVectors
from streams.dirty import DirtyUsers

_DIM: Final = 384
_ROUNDS: Final = 7
_DIRTY: Final = 100_000
_BATCH: Final = 300


class _Queries:
    """The port ``ItemEncoder``; no window of these asks anything."""

    dim = _DIM

    def encode_items(self, items: Sequence[Item]) -> Any:
        return np.zeros((len(items), _DIM), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> Any:
        return np.zeros((len(texts), _DIM), np.float32)


class _TenItems:
    """An item store that finds the same ten at once."""

    def __init__(self, items: Sequence[EncodedItem]) -> None:
        self._found = [ScoredItem(item=encoded.item, score=0.5) for encoded in items[:10]]

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        return self._found


async def _costs() -> list[tuple[str, float]]:
    windows = list(itertools.islice(full_windows(50), 3 * _BATCH))
    draw = np.random.default_rng(0)
    items = [
        EncodedItem(item=Item(item_id=f"item-{i:05d}", title=f"Thing {i}"), vector=row)
        for i, row in enumerate(unit(draw.normal(size=(N_ITEMS, _DIM))))
    ]
    rows = [
        ("dirty: mark one more of 100,000", _of_dirty(_mark)),
        ("dirty: take and confirm 300 of 100,000", _of_dirty(_take)),
    ]
    encoder, known = DecayUserEncoder(_Queries(), DecayParameters()), EncodedItems.stacked(items)
    for n in (1, 20, _BATCH):
        few = EncodedItems.stacked(known[i] for i in sorted(_items_of(windows[:n])))
        per = _best(lambda part=windows[:n], few=few: encoder.encode(part, few)) / n  # type: ignore[misc]
        rows.append((f"encode (decay), {n} users at once", per))
    with EmbeddedServices() as services:
        store = RedisUserVectors(services.redis_url)
        for n in (1, 20, _BATCH):
            updates = [vector_update(window, i) for i, window in enumerate(windows[:n])]
            per = await _best_of(lambda updates=updates: store.upsert(updates)) / n  # type: ignore[misc]
            rows.append((f"upsert, {n} users at once", per))
        rows += await _reads(store, windows, items)
        await store.close()
    return rows


async def _reads(
    store: RedisUserVectors, windows: Sequence[BehaviourWindow], items: Sequence[EncodedItem]
) -> list[tuple[str, float]]:
    updates = [vector_update(window, i) for i, window in enumerate(windows[:100])]
    await store.upsert(updates)
    model_id = updates[0].vector.model_id
    await store.set_live_model(LiveModel(model_id=model_id, collection="bench", dim=_DIM))
    found: Any = _TenItems(items)
    app = create_app(StoreRecommender(store, lambda live: found), metrics=PrometheusMetrics())
    rows: list[tuple[str, float]] = []
    for name, rest in (("vector", "/vector"), ("recommendations", "/recommendations?k=10")):
        for n in (1, 100):
            for way, more in (("", ""), (", by the framework", "?unusual=1")):
                target = rest + (more if "?" not in rest else more.replace("?", "&"))
                asked = [f"/v1/users/{w.subject_id}{target}" for w in windows[:n]]
                per = await _best_of(lambda asked=asked: _ask(app, asked)) / n  # type: ignore[misc]
                rows.append((f"GET {name}, {n} at once{way}", per))
    return rows


async def _ask(app: Any, targets: Sequence[str]) -> None:
    async def one(target: str) -> None:
        path, _, query = target.partition("?")
        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": query.encode(),
            "headers": [(b"host", b"shop")], "state": {}, "root_path": "", "scheme": "http",
            "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9), "http_version": "1.1",
        }  # fmt: skip

        async def send(message: dict[str, Any]) -> None:
            if message.get("status", 200) != 200:
                raise RuntimeError(f"{target} answers {message['status']}")

        await app(scope, _nothing, send)

    await asyncio.gather(*map(one, targets))


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def _items_of(windows: Sequence[BehaviourWindow]) -> set[str]:
    return set().union(*(window.item_ids for window in windows))


def _of_dirty(step: Callable[[DirtyUsers, int], float]) -> float:
    dirty = DirtyUsers()
    for i in range(_DIRTY):
        dirty.mark(f"user-{i:06d}", i % 8, i)
    return min(step(dirty, i) for i in range(_ROUNDS))


def _mark(dirty: DirtyUsers, round_: int) -> float:
    began = time.thread_time()
    for i in range(N_USERS):
        dirty.mark(f"more-{round_}-{i:05d}", i % 8, i)
    return (time.thread_time() - began) / N_USERS


def _take(dirty: DirtyUsers, round_: int) -> float:
    began = time.thread_time()
    dirty.confirm(dirty.take(lambda mark: 1, _BATCH))
    return (time.thread_time() - began) / _BATCH


def _best(call: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        began = time.thread_time()
        call()
        seconds.append(time.thread_time() - began)
    return min(seconds)


async def _best_of(call: Callable[[], Awaitable[Any]]) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        began = time.thread_time()
        await call()
        seconds.append(time.thread_time() - began)
    return min(seconds)


def main() -> None:
    """Print the table."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(_costs())
    table = Table("what", "µs")
    table.columns[1].justify = "right"
    for name, seconds in rows:
        table.add_row(name, f"{seconds * 1e6:.1f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
