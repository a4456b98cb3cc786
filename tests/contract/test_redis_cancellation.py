"""A task that is cancelled in the middle of a call to Redis ends, whatever the moment."""

from __future__ import annotations

import asyncio
import uuid

from store.redis_vectors import RedisUserVectors
from tests.contract.conftest import RedisServer

#: A first call, with the connection it opens, takes fewer turns of the loop.
_TURNS = 60


async def test_a_cancellation_is_not_lost(redis_server: RedisServer) -> None:
    """redis-py waits by ``asyncio.wait_for``, which before Python 3.12 may lose it."""
    lost: list[int] = []
    for turns in range(_TURNS):
        store = RedisUserVectors(redis_server.url, prefix=f"{uuid.uuid4().hex}:")

        async def watch(store: RedisUserVectors = store) -> None:
            while True:
                await store.ping()
                await store.epoch()
                await asyncio.sleep(60)

        task = asyncio.create_task(watch())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        _, running = await asyncio.wait({task}, timeout=5)
        if running:
            lost.append(turns)
            task.cancel()
            await asyncio.wait({task})
        await store.close()
    assert lost == []
