"""Recommendations of ``interest serve`` end to end: HTTP, the user's record in Redis, retrieval."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np

from benchmarks.event_log import Message, send
from benchmarks.item_space import encoded_items, query_vectors
from benchmarks.retrieval_searches import CATEGORY, EXCLUDED, Sizes
from benchmarks.retrieval_subjects import Vectors
from benchmarks.servers import servers
from interest.bundle import LiveModel
from interest.event import EventType
from interest.item import encoded_item_to_bytes
from interest.ports import VectorUpdate
from interest.recent import RecentBehaviour, recent_to_bytes
from interest.settings import Settings
from interest.vector import Token, UserVector
from interest_cli.wiring import collection_of, user_vectors
from streams.items_feed import item_key
from streams.topics import TopicNames, ensure_topics
from tests.servers import free_port

_MODEL: Final = "bench"
_N_USERS: Final = 100
_RUNS: Final = 3
_AT_ONCE: Final = 4
_READY_S: Final = 180.0
_PATHS: Final = {
    "all items": "&exclude_seen=false",
    "50 excluded": "",
    "one category, 50 excluded": f"&category=category-{CATEGORY}",
}


def http_times(sizes: Sizes) -> dict[str, list[float]]:
    """Fill Redis and the topic ``items-encoded``, serve, and ask; property → runs.

    Raises:
        Unavailable: there is no broker or no Redis.
    """
    vectors: Vectors = np.load(sizes.path)
    row: dict[str, list[float]] = {}
    with servers("embedded") as running:
        prefix = f"retrieval-{uuid.uuid4().hex[:8]}-"
        settings = Settings(
            kafka_bootstrap=running.kafka_bootstrap,
            redis_url=running.redis_url,
            redis_prefix=f"{prefix}:",
            topic_prefix=prefix,
            partitions=1,
            api_port=free_port(),
        )
        asyncio.run(_fill(settings, vectors))
        began = time.perf_counter()
        with _serving(settings) as process:
            _wait(settings, process)
            row["until it is ready (s)"] = [time.perf_counter() - began]
            for name, options in _PATHS.items():
                paths = [
                    f"/v1/users/user-{i % _N_USERS}/recommendations?k=10{options}"
                    for i in range(sizes.calls)
                ]
                for _ in range(_RUNS):
                    for callers in (1, _AT_ONCE):
                        times = _ask(settings, paths, callers)
                        at_once = "" if callers == 1 else f", {callers} at once"
                        for q in (50, 99):
                            row.setdefault(f"{name}{at_once}, p{q} (ms)", []).append(
                                float(np.percentile(times, q))
                            )
    return row


async def _fill(settings: Settings, vectors: Vectors) -> None:
    await ensure_topics(settings)
    topic = TopicNames.of(settings).items_encoded

    def messages() -> Iterator[Message]:
        for encoded in encoded_items(vectors):
            key = item_key(_MODEL, encoded.item.item_id)
            yield Message(topic, 0, key, encoded_item_to_bytes(encoded))

    await asyncio.to_thread(send, settings.kafka_bootstrap, messages())
    store = user_vectors(settings)
    seen = tuple(RecentBehaviour(EventType.CLICK, 1, f"item-{i}") for i in EXCLUDED)
    await store.upsert(
        [
            VectorUpdate(
                UserVector(
                    user_id=f"user-{i}", model_id=_MODEL, token=Token(0, 1, 1), event_time_ms=1,
                    encode_time_ms=1, n_events=len(seen), vectors=vector[np.newaxis],
                ),
                recent_to_bytes(seen),
            )
            for i, vector in enumerate(query_vectors(vectors, _N_USERS))
        ]
    )  # fmt: skip
    await store.set_live_model(
        LiveModel(model_id=_MODEL, collection=collection_of(_MODEL), dim=vectors.shape[1])
    )
    await store.close()


@contextmanager
def _serving(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    names = ("kafka_bootstrap", "redis_url", "redis_prefix", "topic_prefix", "api_port")
    environment = {f"INTEREST_{name.upper()}": str(getattr(settings, name)) for name in names}
    with tempfile.TemporaryFile(prefix="bench-serve-") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from interest_cli.main import main; main()", "serve"],
            env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}\n{log.read().decode()[-2000:]}") from error
        finally:
            process.terminate()
            process.wait()


def _wait(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            if _get(_connected(settings), "/v1/users/user-0/recommendations?k=10") == 200:
                return
        except OSError:
            pass  # it does not listen yet
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("interest serve does not answer")
        time.sleep(0.2)


def _ask(settings: Settings, paths: Sequence[str], callers: int) -> list[float]:
    """Ask for each path, by so many callers that keep their connection; times in ms."""
    waiting, taken = iter(paths), list[float]()
    lock = threading.Lock()

    def call() -> None:
        connection = _connected(settings)
        while True:
            with lock:
                path = next(waiting, None)
            if path is None:
                return
            began = time.perf_counter()
            status = _get(connection, path)
            if status != 200:
                raise RuntimeError(f"{path}: status {status}")
            taken.append((time.perf_counter() - began) * 1e3)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(taken) != len(paths):
        raise RuntimeError(f"{len(paths) - len(taken)} requests have failed")
    return taken


def _connected(settings: Settings) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(settings.api_host, settings.api_port, timeout=30)


def _get(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    if response.status == 200 and len(json.loads(body)["items"]) != 10:
        raise RuntimeError(f"{path}: {body[:200]!r}")
    return response.status
