"""Real servers for tests: Apache Kafka where it lies beside the checkout, and the embedded ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: A script `start PORT DATA_DIR` that runs one Kafka node in the foreground.
KAFKA_START = Path(os.environ.get("KAFKA_START", ROOT.parent / "shared" / "kafka" / "start"))
_READY_S = 60.0
_ATTEMPTS = 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def apache_kafka(folder: Path) -> Iterator[str]:
    """Run Apache Kafka; skip, visibly, where it is not there."""
    if not KAFKA_START.exists():
        pytest.skip(f"no Apache Kafka: {KAFKA_START} does not exist (set KAFKA_START)")
    for attempt in range(_ATTEMPTS):
        # Another process may take a port between its choice and its use.
        port, controller = free_port(), free_port()
        log = folder / f"kafka-{attempt}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(KAFKA_START), str(port), str(folder / f"data-{attempt}")],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "KAFKA_CONTROLLER_PORT": str(controller), "KAFKA_HEAP": "512m"},
                start_new_session=True,
            )
        try:
            if _answers(port, process):
                yield f"127.0.0.1:{port}"
                return
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    pytest.fail(f"Apache Kafka did not start:\n{log.read_text()[-2000:]}")


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
