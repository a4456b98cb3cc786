"""A process that has loaded everything once, and forks a worker at a word: it starts in no time.

Reads orders on standard input, one JSON line each: ``{"spawn": {...}}``, the fields of
:class:`tests.chaos.orders.Spec`. Answers on standard output: ``{"ready": true}`` at first,
``{"spawned": pid, "name": ...}``, ``{"exited": pid, "status": ...}``. Ends, and its workers with
it, when standard input is closed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
from typing import Any, Final

import msgspec

from interest.settings import Settings
from interest_cli.bundles import load_bundle
from interest_cli.replay import LoadedBundle
from tests.chaos import child
from tests.chaos.orders import Spec
from tests.chaos.processes import die_with

_POLL_S: Final = 0.05


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _spawn(order: dict[str, Any], loaded: LoadedBundle) -> int:
    spec = msgspec.convert(order, Spec)
    zygote = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        tie = die_with(zygote)
        if tie is not None:
            tie()
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        code = child.main(spec, loaded)
    finally:
        # Never back into the zygote's loop, and not through its exit handlers.
        sys.stderr.flush()
        os._exit(code)


def _reap(alive: set[int]) -> None:
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        alive.discard(pid)
        _say({"exited": pid, "status": os.waitstatus_to_exitcode(status)})


def main() -> None:
    """Load the default bundle and serve until standard input is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The harness decides when to stop; a terminal's signals must not take workers away.
    settings = Settings(threads=1, device="cpu")
    loaded = load_bundle(settings)
    gc.freeze()
    alive: set[int] = set()
    unread = b""
    _say({"ready": True})
    try:
        while True:
            _reap(alive)
            if not select.select([0], [], [], _POLL_S)[0]:
                continue
            data = os.read(0, 65536)
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                order = json.loads(line)["spawn"]
                pid = _spawn(order, loaded)
                alive.add(pid)
                _say({"spawned": pid, "name": order["name"]})
    finally:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
