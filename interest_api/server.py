"""Serve an ASGI app with uvicorn inside a running event loop; the caller owns the signals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import uvicorn

from interest.errors import BadInput, ServiceUnavailable

#: Requests under way get so long to end when the server stops.
GRACE_S: Final = 5


class HttpServer:
    """One HTTP server. ``async with HttpServer(...) as server`` serves until the block ends.

    Args:
        port: 0 takes a free one; :attr:`port` is the real one once started.
        setting: the environment variable of the port, for the error line.
    """

    def __init__(
        self, app: Any, host: str, port: int, *, setting: str = "INTEREST_API_PORT"
    ) -> None:
        self.host = host
        self.port = port
        self._setting = setting
        self._server = _Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",  # the wiring opens and closes what the app uses
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Address of the root, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> int:
        """Listen and serve in the background; return the real port.

        Raises:
            ServiceUnavailable: the port is in use.
            BadInput: the host is none of this machine, or the port is not allowed.
        """
        listener = self._listen()
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(
            self._server.serve(sockets=[listener]), name=f"http {self.port}"
        )
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            listener.close()
            self._task.result()  # raises what went wrong
            raise ServiceUnavailable(f"the HTTP server on port {self.port} ended at its start")
        return self.port

    async def wait(self) -> None:
        """Return when the server has ended; raise what ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop accepting, let requests under way end, and return; again is fine."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _listen(self) -> socket.socket:
        # uvicorn's own bind ends the process when the port is taken.
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((self.host, self.port), family=family, backlog=2048)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ServiceUnavailable(
                    f"port {self.port} on {self.host} is in use; stop what uses it or set "
                    f"{self._setting} (0 takes a free port)"
                ) from error
            raise BadInput(
                f"cannot listen on {self.host} port {self.port} "
                f"({error.strerror or error}); see {self._setting}"
            ) from error
        # Accepted sockets inherit it; asyncio sets it on none whose protocol is not named. Without
        # it the body, written after the headers, waits 40 ms for the reader's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener


def check_port(host: str, port: int, *, setting: str = "INTEREST_API_PORT") -> None:
    """Return if a server can listen there now: sooner said than after a model was loaded.

    Raises:
        ServiceUnavailable: the port is in use.
        BadInput: the host is none of this machine, or the port is not allowed.
    """
    HttpServer(None, host, port, setting=setting)._listen().close()


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, which says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
