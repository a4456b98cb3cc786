"""`interest worker` in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks.event_log import N_ITEMS
from interest import metrics as m
from interest.settings import Settings

WORKER: Final = ("-c", "from interest_cli.main import main; main()", "worker")
_READY_S: Final = 120.0


@contextmanager
def worker_process(
    settings: Settings, command: Sequence[str] = WORKER
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `interest worker`, or what stands for it, for the length of the block.

    Args:
        command: arguments of Python; it reads the settings from its environment.

    Raises:
        RuntimeError: from the block; the end of the worker's log is added to it.
    """
    with tempfile.TemporaryFile(prefix="bench-freshness-") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
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
    """Return when the worker reads events, and has encoded the catalogue and all users.

    Raises:
        RuntimeError: it has ended, or needs too long.
    """
    deadline = time.monotonic() + _READY_S
    # Its own counter: the embedded broker (0.1) tells too low an end of a topic.
    while not await asyncio.to_thread(_is_ready, settings):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the worker is not ready")
        await asyncio.sleep(0.2)


def metric(settings: Settings, name: str) -> float:
    """Read one number of the worker's /metrics.

    Raises:
        OSError: it does not answer.
        KeyError: it does not tell this number.
    """
    with urllib.request.urlopen(f"{_url(settings)}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    for line in lines:
        found, _, value = line.partition(" ")
        if found == name:
            return float(value)
    raise KeyError(name)


def _is_ready(settings: Settings) -> bool:
    try:
        with urllib.request.urlopen(f"{_url(settings)}/readyz", timeout=5):
            pass
        encoded, dirty = metric(settings, m.ITEMS), metric(settings, m.DIRTY)
    except OSError:  # urllib's errors are, an answer of 503 included
        return False
    return encoded >= N_ITEMS and not dirty


def _url(settings: Settings) -> str:
    return f"http://{settings.api_host}:{settings.worker_port}"
