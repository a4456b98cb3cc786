"""A TCP proxy that makes a real service slow, silent, cut off or away, at a test's word.

It runs in a thread of its own, so that a test may block, and so may clients in other threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

_CHUNK: Final = 64 * 1024
_CALL_S: Final = 10.0

T = TypeVar("T")


class ToxicProxy:
    """Listens on a port of 127.0.0.1 and passes bytes to a target, healthy until told otherwise.

    The port stays the same through every sickness. The target may be set later: a broker has to
    know the proxy's address before it starts, to advertise it.

    Args:
        target: ``host:port``, or the path of a Unix socket; empty: there is nothing behind.
    """

    def __init__(self, target: str = "") -> None:
        self.target = target
        self._delay_s = 0.0
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="toxic", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._open: asyncio.Event
        #: Connections taken since the start, refused ones not counted.
        self.n_accepted = 0

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> ToxicProxy:
        """Listen."""
        self._thread.start()
        self._call(self._begin())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut everything and stop listening."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_S)
        self._loop.close()
        self._listener.close()

    # What a test orders; each returns when it holds.

    def heal(self) -> None:
        """Be a good network again; bytes that were held back arrive now."""
        self._delay_s = 0.0
        self._call(self._set_open(True))
        self._call(self._listen())

    def delay(self, seconds: float) -> None:
        """Hold every piece of data back for so long, in both directions."""
        self._delay_s = seconds

    def stall(self) -> None:
        """Take connections and bytes, and pass nothing on: a service that hangs."""
        self._call(self._set_open(False))

    def cut(self) -> None:
        """Break every connection; new ones are taken."""
        self._call(self._cut())

    def refuse(self) -> None:
        """Break every connection and refuse new ones: a service that is away."""
        self._call(self._close())
        self._call(self._cut())

    # In the thread.

    def _call(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(_CALL_S)

    async def _begin(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        await self._listen()

    async def _end(self) -> None:
        await self._close()
        await self._cut()

    async def _set_open(self, value: bool) -> None:
        (self._open.set if value else self._open.clear)()

    async def _listen(self) -> None:
        if self._server is None:
            # The port stays bound while nobody listens, so that nobody else can take it; a
            # bound socket that does not listen refuses connections.
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            self._server = await asyncio.start_server(self._accept, sock=listener)

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            # Not wait_closed(): from Python 3.12 it waits for the connections that we cut next.
            server.close()

    async def _cut(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.n_accepted += 1
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            # Cut: the task ends well, or asyncio would report what the test ordered.
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            behind = await self._connect()
        except OSError:
            return  # nothing there: the client sees its connection broken
        try:
            ways = [
                asyncio.create_task(self._pump(reader, behind[1])),
                asyncio.create_task(self._pump(behind[0], writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            behind[1].transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.target.startswith("/"):
            return await asyncio.open_unix_connection(self.target)
        host, _, port = self.target.rpartition(":")
        if not host:
            raise ConnectionRefusedError("no target")
        return await asyncio.open_connection(host, int(port))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes one way, in order; a delay is one of latency, not of bandwidth."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        receiving = asyncio.create_task(self._receive(reader, waiting))
        clock: Callable[[], float] = self._loop.time
        try:
            with contextlib.suppress(OSError):
                while True:
                    due, data = await waiting.get()
                    await asyncio.sleep(max(0.0, due - clock()))
                    await self._open.wait()
                    if not data:
                        return
                    writer.write(data)
                    await writer.drain()
        finally:
            receiving.cancel()

    async def _receive(
        self, reader: asyncio.StreamReader, waiting: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        data = b"."
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""
            await waiting.put((self._loop.time() + self._delay_s, data))
