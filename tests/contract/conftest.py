"""A real redis-server for the suites of the stores."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from interest_cli.owner import redis_program

_READY_S = 20.0


class RedisServer:
    """One server on a socket in a folder; can be stopped and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        # A socket's path may be about 100 bytes long; pytest's folders are longer sometimes.
        self._socket = folder / "r.sock"
        self._command = [
            redis_program(), "--port", "0", "--unixsocket", str(self._socket), "--save", "",
            "--appendonly", "no", "--dir", str(folder), *options,
        ]  # fmt: skip
        self._log = folder / "redis.log"
        self.password = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def client(self) -> redis.Redis:
        # Without the retries of the synchronous client: they would wait for what is tested here.
        return redis.Redis(
            unix_socket_path=str(self._socket),
            password=self.password or None,
            retry=Retry(NoBackoff(), 0),
        )

    def start(self, *, loaded: bool = True) -> None:
        """Start and wait: until the server has its data, or only until it answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                client = self.client
                client.ping()
                client.close()
                return
            except redis.ConnectionError as error:
                if not loaded and isinstance(error, redis.exceptions.BusyLoadingError):
                    return
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"redis-server did not start: {self._log.read_text()}")
                time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the tests that leave it as it was."""
    with running_redis(tmp_path_factory.mktemp("r")) as server:
        yield server
