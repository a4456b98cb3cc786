"""The servers of a run: killed and started again, on the same port, with what they hold or not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final, Literal

from redis import Redis
from redis.exceptions import RedisError

from interest_cli.owner import redis_program
from interest_cli.services import EmbeddedServices
from tests.chaos.processes import die_with
from tests.servers import KAFKA_START, free_port

_READY_S: Final = 60.0

RedisLoss = Literal["none", "all", "old"]


class HarnessFailed(Exception):
    """The harness itself cannot go on; says nothing about the product."""


class _Process:
    """One server in a session of its own; ends with the harness in whatever way that ends."""

    def __init__(self, name: str, argv: list[str], folder: Path, env: dict[str, str]) -> None:
        self.name = name
        self._argv = argv
        self._folder = folder
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=self._folder, env={**os.environ, **self._env}, start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )  # fmt: skip

    def check(self) -> None:
        """Raise when the process has ended.

        Raises:
            HarnessFailed: with the end of its log.
        """
        if self._process is not None and self._process.poll() is not None:
            log = (self._folder / f"{self.name}.log").read_text("utf-8", "replace")
            raise HarnessFailed(f"{self.name} has ended: {log[-800:]}")

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class RedisServer:
    """A Redis whose disk we hold: a dump in its folder, and an older copy of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "redis"
        self._folder.mkdir()
        self._port = free_port()
        self._old = self._folder / "old.rdb"
        self._dump = self._folder / "dump.rdb"
        argv = [redis_program(), "--port", str(self._port), "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "no", "--dir", str(self._folder)]  # fmt: skip
        self._process = _Process("redis", argv, self._folder, {})
        self._client = Redis(port=self._port, socket_timeout=5, socket_connect_timeout=1)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    async def start(self) -> None:
        """Start, and return when it answers."""
        self._process.launch()
        async with asyncio.timeout(_READY_S):
            while not await asyncio.to_thread(self._answers):
                self._process.check()
                await asyncio.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except RedisError:
            return False

    async def copy(self) -> None:
        """Keep a copy of the data as they are now."""
        await asyncio.to_thread(self._client.save)
        shutil.copyfile(self._dump, self._old)

    @property
    def has_copy(self) -> bool:
        return self._old.exists()

    async def restart(self, loses: RedisLoss, away_s: float = 0.0) -> None:
        """Stop and start again; what it then holds is everything, nothing, or the older copy."""
        if loses == "none":
            # Saved and gone in one step: what was acknowledged is in the dump.
            with contextlib.suppress(RedisError):
                await asyncio.to_thread(self._client.shutdown, save=True)
        self._process.kill()
        if loses == "all":
            self._dump.unlink(missing_ok=True)
        elif loses == "old":
            shutil.copyfile(self._old, self._dump)
        await asyncio.sleep(away_s)
        await self.start()

    def kill(self) -> None:
        self._client.close()
        self._process.kill()


class Broker:
    """Tansu in memory, which cannot be restarted, or Apache Kafka with its disk."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._embedded: EmbeddedServices | None = None
        self._process: _Process | None = None
        self.port = 0
        if kind == "kafka":
            if not KAFKA_START.exists():
                raise HarnessFailed(f"no Apache Kafka: {KAFKA_START} does not exist; "
                                    "set KAFKA_START, or take BROKER=tansu")  # fmt: skip
            self.port = free_port()
            env = {"KAFKA_CONTROLLER_PORT": str(free_port()), "KAFKA_HEAP": "512m"}
            argv = [str(KAFKA_START), str(self.port), str(folder / "kafka-data")]
            self._process = _Process("kafka", argv, folder, env)

    @property
    def can_restart(self) -> bool:
        return self._process is not None

    @property
    def bootstrap(self) -> str:
        return self._embedded.kafka_bootstrap if self._embedded else f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start, and return when it listens."""
        if self._process is None:
            self._embedded = await asyncio.to_thread(EmbeddedServices().__enter__)
            return
        self._process.launch()
        async with asyncio.timeout(_READY_S):
            while True:
                self._process.check()
                try:
                    socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def restart(self, away_s: float) -> None:
        """Kill it without warning, and start it again on its disk."""
        assert self._process is not None
        self._process.kill()
        await asyncio.sleep(away_s)
        await self.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        if self._embedded is not None:
            self._embedded.__exit__(None, None, None)
            self._embedded = None
