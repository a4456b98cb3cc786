"""`interest topics grow`: the worker that reads everything first, and what is said meanwhile."""

from __future__ import annotations

import asyncio
from typing import Final

from interest.metrics import NoMetrics
from interest.settings import Settings
from interest_cli.bundles import load_bundle
from interest_cli.console import err, out
from interest_cli.serving import first
from interest_cli.wiring import open_worker
from store.aes_sealer import sealer_of
from streams.grow import grow
from streams.worker import Worker

_POLL_S: Final = 0.2


async def grow_topics(settings: Settings, n: int) -> None:
    """Grow the topics to ``n`` partitions; see :func:`streams.grow.grow`."""

    async def drain() -> None:
        with err.status("loading the text model"):
            loaded = await asyncio.to_thread(load_bundle, settings)
        with err.status("reading what is published"):
            async with open_worker(settings, loaded, NoMetrics()) as (worker, _, _):
                await first(worker.failure(), _idle(worker))

    sealer = sealer_of(settings.encryption_keys)
    moved = await grow(settings, n, drain, lambda line: out.print(line, markup=False), sealer)
    out.print(f"{n} partitions, {moved.n_windows} windows moved; workers can start again")


async def _idle(worker: Worker) -> None:
    while not await worker.idle():
        await asyncio.sleep(_POLL_S)
