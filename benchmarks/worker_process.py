"""`interest worker` in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer

from benchmarks.event_log import N_ITEMS
from interest.settings import Settings
from streams.topics import TopicNames

_READY_S: Final = 120.0


@contextmanager
def worker_process(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run `interest worker` for the length of the block.

    Raises:
        RuntimeError: from the block; the end of the worker's log is added to it.
    """
    with tempfile.TemporaryFile(prefix="bench-freshness-") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from interest_cli.main import main; main()", "worker"],
            env={**os.environ, **_environment(settings)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}\n{log.read().decode()[-2000:]}") from error
        finally:
            process.terminate()
            process.wait()


def _environment(settings: Settings) -> dict[str, str]:
    return {
        f"INTEREST_{name.upper()}": str(getattr(settings, name))
        for name in (
            "kafka_bootstrap", "redis_url", "redis_prefix", "topic_prefix", "group_id",
            "partitions", "session_timeout_s", "fetch_max_wait_ms", "worker_port",
        )
    }  # fmt: skip


async def ready(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    """Return when the worker reads events and has encoded the catalogue.

    Raises:
        RuntimeError: it has ended, or needs too long.
    """
    deadline = time.monotonic() + _READY_S
    consumer = AIOKafkaConsumer(
        TopicNames.of(settings).items_encoded, bootstrap_servers=settings.kafka_bootstrap
    )
    await consumer.start()
    try:
        while True:
            ends = await consumer.end_offsets(consumer.assignment())
            if sum(ends.values()) >= N_ITEMS and await asyncio.to_thread(_answers, settings):
                return
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the worker is not ready")
            await asyncio.sleep(0.1)
    finally:
        await consumer.stop()


def _answers(settings: Settings) -> bool:
    url = f"http://127.0.0.1:{settings.worker_port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
