"""The way to one Redis: its connections, its scripts, and its errors in our words."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from interest.errors import BadInput, ServiceUnavailable
from interest.tls import TlsFiles, tls_problem
from store.scripts import SCRIPTS

_TIMEOUT_S: Final = 5.0
#: More calls than this at once wait for a connection, as long as for an answer.
_CONNECTIONS: Final = 64
_PREFIX: Final = "INTEREST_REDIS"
_NO_FILES: Final = TlsFiles(_PREFIX)
#: redis-py puts the command before an error of a pipeline, and the command has user ids in it.
_COMMAND: Final = re.compile(
    r"Command # \d+ \(.*\) of pipeline caused error: \((.*?),?\)\Z", re.DOTALL
)
_CUT_OFF: Final = re.compile(r"closed by server|reset by peer|Broken pipe")


#: What commands are queued in.
Commands: TypeAlias = Pipeline


class _TlsConnection(SSLConnection):
    """A connection with a context of ours: redis-py's own trusts the system's authorities too."""

    def __init__(self, *, tls_context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = tls_context


class RedisLink:
    """Connections to one Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        tls: files for ``rediss://``; without any, what the system trusts.

    Raises:
        BadInput: the URL is none, or the files cannot be used.
    """

    def __init__(self, url: str, tls: TlsFiles = _NO_FILES) -> None:
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=_TIMEOUT_S,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                # After a restart of Redis each pooled connection is dead once. All that we send
                # may be sent twice.
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            )
        except ValueError:
            # Neither the URL nor the parser's words (nor its traceback): a password may be in both.
            raise BadInput(
                "INTEREST_REDIS_URL is no Redis URL: redis://, rediss:// or unix://, special "
                "characters of a password percent-encoded"
            ) from None
        if tls.given:
            if not issubclass(pool.connection_class, SSLConnection):
                raise BadInput(
                    f"{' and '.join(tls.given)} need a rediss:// address in {_PREFIX}_URL"
                )
            pool.connection_class = _TlsConnection
            pool.connection_kwargs["tls_context"] = tls.context()
        self.redis: Redis = Redis.from_pool(pool)
        self._without_cert = issubclass(pool.connection_class, SSLConnection) and not tls.cert

    @asynccontextmanager
    async def translated(self) -> AsyncIterator[None]:
        before = _cancellations()
        try:
            yield
            if _cancellations() > before:
                # redis-py waits by ``wait_for``, which before Python 3.12 loses a cancellation
                # that comes just as its inner task ends: a task of ours would never stop.
                raise asyncio.CancelledError
        except (RedisError, OSError, TimeoutError) as error:
            problem = tls_problem(error, _PREFIX)
            if problem:
                raise ServiceUnavailable(f"Redis: {problem}") from error
            # Without any password redis-py meets the refusal as an answer to its HELLO.
            if isinstance(error, AuthenticationError) or "authenticat" in str(error):
                raise ServiceUnavailable(
                    f"Redis refuses the password or user ({error}); see INTEREST_REDIS_URL"
                ) from error
            text = _COMMAND.sub(r"\1", str(error)) or type(error).__name__
            if isinstance(error, NoPermissionError):
                text += "; docs/security.md says which rights it needs"
            if self._without_cert and _CUT_OFF.search(text):
                # The handshake is over for us when TLS 1.3 refuses a client without one, and the
                # alert that says so may be overtaken by a reset.
                text += f" It may ask for a certificate: see {_PREFIX}_CERT_FILE"
            # Not from the error: a traceback in a log would show the command.
            raise ServiceUnavailable(f"Redis: {text}") from None
        except UnicodeEncodeError as error:  # a shell's argument may hold any bytes
            raise BadInput(f"the id {error.object!r} is no valid Unicode text") from error

    async def run(self, queue: Callable[[Pipeline], None]) -> list[Any]:
        """Run scripts in one pipeline; load them where Redis was restarted or flushed."""
        async with self.translated():
            try:
                return await self._execute(queue)
            except NoScriptError:
                for script in SCRIPTS:
                    await self.redis.script_load(script.text)
                return await self._execute(queue)

    async def ask(self, queue: Callable[[Pipeline], None]) -> list[Any]:
        """Read in one pipeline; a key that is of another type than ours reads as None."""
        pipeline = self.redis.pipeline(transaction=False)
        queue(pipeline)
        async with self.translated():
            answers = await pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not is_foreign(answer):
                    raise answer
        return [None if isinstance(answer, Exception) else answer for answer in answers]

    async def _execute(self, queue: Callable[[Pipeline], None]) -> list[Any]:
        pipeline = self.redis.pipeline(transaction=False)
        queue(pipeline)
        # An error of one command must not hide that the others were carried out: a retry of
        # all is safe, since an equal token is accepted.
        answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return list(answers)

    async def close(self) -> None:
        """Give the connections back."""
        await self.redis.aclose()


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def is_foreign(answer: object) -> bool:
    """Tell whether Redis says that a key is of another type than ours."""
    return isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE")


def starting_with(start: bytes) -> bytes:
    """Give the pattern of all keys that begin so."""
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", start) + b"*"
