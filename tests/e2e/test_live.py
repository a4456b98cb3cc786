"""Worker, API and commands as processes, over each broker."""

from __future__ import annotations

import asyncio
import re
import signal
import uuid
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import redis
from aiokafka import AIOKafkaConsumer

from interest.bundle_file import read_bundle
from interest.vector import Token, vector_from_bytes
from interest.window_bytes import window_from_bytes
from tests.conftest import Servers
from tests.e2e.conftest import EVENTS, ITEMS, interest, running, until
from tests.e2e.test_demo import rows


def test_a_worker_process_leaves_the_vectors_of_an_offline_replay(
    tmp_path: Path, servers: Servers, fitted: Path, offline: Path
) -> None:
    name = uuid.uuid4().hex[:8]
    settings = {
        "INTEREST_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
        "INTEREST_REDIS_URL": servers.redis_url,
        "INTEREST_REDIS_PREFIX": f"{name}:",
        "INTEREST_TOPIC_PREFIX": f"{name}-",
        "INTEREST_GROUP_ID": name,
        "INTEREST_SESSION_TIMEOUT_S": "6",
        "INTEREST_FETCH_MAX_WAIT_MS": "20",
        "INTEREST_WORKER_PORT": "0",
        "INTEREST_API_PORT": "0",
        "INTEREST_BUNDLE": str(fitted),
    }
    created = interest("topics", "create", "--partitions", 12, cwd=tmp_path, env=settings)
    assert "12 partitions" in created.stdout, created.stderr
    with running("worker", cwd=tmp_path, env=settings) as worker:
        worker.says("/metrics")
        found = re.search(r"(http://\S+)/metrics", worker.output)
        assert found is not None
        url = found[1]

        def metric(pattern: str) -> float:
            text = httpx.get(f"{url}/metrics").text
            return sum(float(v) for v in re.findall(rf"^{pattern} (\S+)$", text, re.M))

        loaded = interest("catalogue", "load", ITEMS, cwd=tmp_path, env=settings)
        assert "2460 items published" in loaded.stdout, loaded.stderr
        replayed = interest("replay", EVENTS, cwd=tmp_path, env=settings)
        assert "26820 events published" in replayed.stdout, replayed.stderr
        until(lambda: metric(r"interest_items_encoded_total") == 2460, "items", 120)
        until(lambda: metric(r"interest_events_total\{.*\}") >= 26820, "events")
        until(lambda: metric(r"interest_dirty_users") == 0, "vectors")

        expected = rows(offline)
        plain: Any = redis.Redis.from_url(servers.redis_url)

        def disagreeing() -> list[str]:
            """Read the records as any reader would, and compare."""
            wrong: list[str] = []
            for user_id, row in expected.items():
                raw = plain.hget(f"{name}:user:{user_id}", row["model_id"])
                vector = vector_from_bytes(raw, user_id, row["model_id"])
                same = (vector.n_events, len(vector.vectors)) == (
                    row["n_events"], row["n_interests"],
                )  # fmt: skip
                if not same or (
                    not vector.is_cold
                    and float(vector.vectors[0] @ np.array(row["vector"])) < 0.9999
                ):
                    wrong.append(user_id)
            return wrong

        until(lambda: disagreeing() == [], "every vector equals the offline replay's")
        plain.close()
        user = next(iter(expected))
        shown = interest("vector", user, cwd=tmp_path, env=settings)
        assert f"1 × {read_bundle(fitted).dim}" in shown.stdout, shown.stderr
        listed = interest("recommend", user, "-k", 5, cwd=tmp_path, env=settings)
        assert len(listed.stdout.splitlines()) == 6, listed.stderr
        missing = interest("vector", "nobody", cwd=tmp_path, env=settings)
        assert (missing.returncode, missing.stdout) == (2, "")
        with running("serve", cwd=tmp_path, env=settings) as api:
            api.says("serving on")
            address = re.search(r"serving on (http://\S+),", api.output)
            assert address is not None
            until(lambda: httpx.get(f"{address[1]}/readyz").status_code == 200, "ready")
            answer = httpx.get(f"{address[1]}/v1/users/{user}/recommendations").json()
            assert len(answer["items"]) == 10
            assert api.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        assert worker.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert "Traceback" not in worker.output
    # Stopped in order: its last checkpoint has put every window in the changelog.
    windows = asyncio.run(_windows(servers.kafka_bootstrap, f"{name}-windows-changelog"))
    assert windows.keys() == expected.keys()
    assert [u for u, row in expected.items() if windows[u] != row["window"]] == []


async def _windows(bootstrap: str, topic: str) -> dict[str, bytes]:
    """Read a changelog as a new owner does, the highest token winning; content by user."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20
    )
    await consumer.start()
    try:
        best: dict[str, tuple[Token, bytes]] = {}
        ends = await consumer.end_offsets(consumer.assignment())
        for tp, end in ends.items():
            while await consumer.position(tp) < end:
                for record in (await consumer.getmany(tp, timeout_ms=1000)).get(tp, []):
                    window, generation, _ = window_from_bytes(record.value)
                    token = Token(window.era, generation, window.revision)
                    held = best.get(window.subject_id)
                    if held is None or token >= held[0]:
                        best[window.subject_id] = (token, window.content())
        return {user: content for user, (_, content) in best.items()}
    finally:
        await consumer.stop()
