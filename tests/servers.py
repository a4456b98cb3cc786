"""Real servers for tests: Apache Kafka where it lies beside the checkout, and the embedded ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: A script `start PORT DATA_DIR` that runs one Kafka node in the foreground.
KAFKA_START = Path(os.environ.get("KAFKA_START", ROOT.parent / "shared" / "kafka" / "start"))
_READY_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server on port {port} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)


@contextmanager
def apache_kafka(folder: Path) -> Iterator[str]:
    """Run Apache Kafka; skip, visibly, where it is not there."""
    if not KAFKA_START.exists():
        pytest.skip(f"no Apache Kafka: {KAFKA_START} does not exist (set KAFKA_START)")
    port, controller = free_port(), free_port()
    log = folder / "kafka.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(KAFKA_START), str(port), str(folder / "data")],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "KAFKA_CONTROLLER_PORT": str(controller), "KAFKA_HEAP": "512m"},
            start_new_session=True,
        )
        try:
            wait_for_port(port, process, log)
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
