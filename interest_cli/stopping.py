"""Signals end a command in order: a first one stops, a second one stops at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from interest_cli.interpreter import loop_factory

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


class Stopped(BaseException):
    """A signal asked the command to end; ``code`` is the exit code a shell expects."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def run(job: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; a signal cancels it, so that it can close what it opened.

    Raises:
        Stopped: after the coroutine has ended because of a signal.
    """
    received: list[int] = []

    async def guarded() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(job)

        def stop(number: int) -> None:
            if received:
                os._exit(128 + number)  # asked twice: leave now; children watch our pipe
            received.append(number)
            task.cancel()

        for number in _SIGNALS:
            # nohup has us ignore SIGHUP, and means it.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, stop, number)
        return await task

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(guarded())
    except asyncio.CancelledError:
        if received:
            raise Stopped(received[0]) from None
        raise
