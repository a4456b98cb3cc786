"""A Redis of one test's own, which can be made ill: the server itself, or the way to it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from interest_cli.replay import LoadedBundle
from store import redis_link
from tests.conftest import Servers
from tests.contract.conftest import RedisServer, running_redis
from tests.stream.conftest import Harness
from tests.toxic import ToxicProxy

#: 20 ms for each key of a snapshot; Redis looks at its sockets once for every 2 MB of it.
SLOW_LOADING = ("--key-load-delay", "20000")


class Ward:
    """An installation whose Redis can be made ill: the server itself, or the way to it."""

    def __init__(self, harness: Harness, redis: RedisServer, proxy: ToxicProxy, dump: Path) -> None:
        self.harness = harness
        self.redis = redis
        self.proxy = proxy
        self.dump = dump

    def command(self, *words: str | int) -> None:
        client = self.redis.client
        client.execute_command(*words)  # type: ignore[no-untyped-call]
        client.close()

    def signal(self, number: signal.Signals) -> None:
        assert self.redis.process is not None
        os.kill(self.redis.process.pid, number)

    def crash(self) -> None:
        """Save, and die: what comes back has its data."""
        self.command("SAVE")
        self.redis.stop()


@asynccontextmanager
async def redis_ward(
    bootstrap: str, loaded: LoadedBundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ward]:
    """Start a Redis in ``folder``, with a proxy before it, for an installation on a broker."""
    # The usual five seconds only make a hanging Redis take longer to be noticed.
    monkeypatch.setattr(redis_link, "_TIMEOUT_S", 0.5)
    with (
        running_redis(folder, "--rdbcompression", "no", *SLOW_LOADING) as server,
        ToxicProxy(server.url.removeprefix("unix://")) as proxy,
    ):
        servers = Servers("tansu", bootstrap, f"redis://{proxy.address}/0")
        harness = Harness(servers, loaded)
        try:
            yield Ward(harness, server, proxy, folder / "dump.rdb")
        finally:
            await harness.vectors.close()
