"""TLS in front of a real server that speaks none, as a sidecar gives it (stunnel and its like)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK = 64 * 1024
_CALL_S = 10.0


@contextmanager
def tls_front(socket_path: str, cert: Path, client_ca: Path | None = None) -> Iterator[int]:
    """Give a port of 127.0.0.1 that speaks TLS and passes everything to a Unix socket.

    Args:
        cert: PEM file of the certificate and its key.
        client_ca: asks clients for a certificate of this authority.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    loop = asyncio.new_event_loop()
    # Clients that refuse our certificate are what is tested, and no error of ours.
    loop.set_exception_handler(lambda loop, context: None)
    thread = threading.Thread(target=loop.run_forever, name="tls front", daemon=True)
    thread.start()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        back: asyncio.StreamWriter | None = None
        try:
            answers, back = await asyncio.open_unix_connection(socket_path)
            ways = [
                asyncio.create_task(_pass(reader, back)),
                asyncio.create_task(_pass(answers, writer)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            for end in (writer, back):
                if end is not None:
                    end.close()
            tasks.discard(task)

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)

    async def end() -> None:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(_CALL_S)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(_CALL_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CALL_S)
        loop.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
