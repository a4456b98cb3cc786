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

from interest_cli.owner import broker_program

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


class Broker:
    """One broker process on a port of its own that can be stopped hard, and comes back there.

    Args:
        command: run with ``env`` added to ours; it serves ``port`` in the foreground.
        advertised: ``host:port`` that clients are told to use, a proxy's perhaps.
    """

    def __init__(
        self, command: list[str], port: int, log: Path, advertised: str, env: dict[str, str]
    ) -> None:
        self._command = command
        self._env = env
        self._log = log
        self.port = port
        self.bootstrap = advertised
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, on the data that is there, and return when the port answers."""
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._env},
                start_new_session=True,
            )
        if not _answers(self.port, self.process):
            self.kill()
            pytest.fail(f"the broker did not start:\n{self._log.read_text()[-2000:]}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the broker: SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it at once, as a crash does; with its data where it keeps any."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def kafka_process(folder: Path, *properties: str) -> Iterator[Broker]:
    """Run Apache Kafka as a process to be killed; skip, visibly, where it is not there.

    Args:
        properties: ``name=value``, for what differs from the usual.
    """
    if not KAFKA_START.exists():
        pytest.skip(f"no Apache Kafka: {KAFKA_START} does not exist (set KAFKA_START)")
    port, controller = free_port(), free_port()
    broker = Broker(
        [str(KAFKA_START), str(port), str(folder / "data"), *properties],
        port,
        folder / "kafka.log",
        f"127.0.0.1:{port}",
        {"KAFKA_CONTROLLER_PORT": str(controller), "KAFKA_HEAP": "512m", "KAFKA_TIER": "1"},
    )
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@contextmanager
def tansu_process(folder: Path, advertised: str = "") -> Iterator[Broker]:
    """Run the embedded broker as a process to be killed; what it held is gone with it."""
    port = free_port()
    command = [
        broker_program(), "broker", "--cluster-id", "tests", "--storage-engine", "memory://tansu/",
        "--listener-url", f"tcp://127.0.0.1:{port}",
        "--advertised-listener-url", f"tcp://{advertised or f'127.0.0.1:{port}'}",
    ]  # fmt: skip
    broker = Broker(command, port, folder / "tansu.log", advertised or f"127.0.0.1:{port}", {})
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
