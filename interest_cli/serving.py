"""The long-running processes: worker and API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

from interest.settings import Settings
from interest_api.app import create_app
from interest_api.keys import keys_of
from interest_api.metrics import PrometheusMetrics
from interest_api.operations import create_worker_app
from interest_api.server import HttpServer, check_port
from interest_cli.bundles import load_bundle
from interest_cli.interpreter import tune_interpreter
from interest_cli.wiring import check_settings, open_recommender, open_worker, worker_checks
from streams.kafka_security import kafka_options

log = logging.getLogger(__name__)


async def run_worker(settings: Settings) -> None:
    """Run a worker until it is cancelled or fails.

    Raises:
        WorkerFailed: it cannot go on; the supervisor should start it again.
        ServiceUnavailable: at start the broker or a store does not answer.
    """
    check_port(settings.api_host, settings.worker_port, setting="INTEREST_WORKER_PORT")
    check_settings(settings)  # what contradicts itself is sooner said than after a model was loaded
    log.info("loading the model")
    loaded = await asyncio.to_thread(load_bundle, settings)
    tune_interpreter()
    metrics = PrometheusMetrics()
    async with AsyncExitStack() as stack:
        worker, items, vectors = await stack.enter_async_context(
            open_worker(settings, loaded, metrics)
        )
        server = HttpServer(
            create_worker_app(worker_checks(worker, vectors, items), metrics),
            settings.api_host, settings.worker_port, setting="INTEREST_WORKER_PORT",
        )  # fmt: skip
        await stack.enter_async_context(server)
        log.info("worker of model %s is ready; %s/metrics", loaded.bundle.model_id, server.url)
        await first(worker.failure(), server.wait())


async def run_api(settings: Settings) -> None:
    """Serve the API until cancelled.

    It starts also while a store is away, and says so by /readyz.

    Raises:
        BadInput: other machines reach the address, and neither keys nor ``api_open`` are set.
    """
    metrics = PrometheusMetrics()
    keys = keys_of(settings)
    kafka_options(settings)  # an index in this process would meet the contradiction later
    async with AsyncExitStack() as stack:
        recommender = await stack.enter_async_context(open_recommender(settings))
        app = create_app(recommender, metrics=metrics, keys=keys)
        server = HttpServer(app, settings.api_host, settings.api_port)
        await stack.enter_async_context(server)
        log.info("serving on %s, documentation at %s/docs", server.url, server.url)
        await server.wait()


async def first(*waits: Awaitable[Any]) -> None:
    """Return when the first of several ends, and raise what it raised; cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
