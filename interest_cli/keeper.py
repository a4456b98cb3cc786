"""Run servers as children, and leave neither a process nor a file when their owner goes.

A process of its own, standard library only, that :mod:`interest_cli.owner` starts in a session
of its own: the Ctrl-C of a terminal reaches the worker first and not the servers it still needs.
The owner holds the other end of standard input. It writes one line of JSON (what to start) and
reads one line back (where it runs, or what went wrong). When the owner ends, in whatever way, the
kernel closes that pipe, and the keeper stops the servers and removes the folder. Only the line
``keep`` lets the servers outlive their owner; then SIGTERM ends them.

The other way round, on Linux the kernel kills the servers when the keeper is killed; elsewhere
the owner looks for them when it ends (``owner.sweep``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from interest_cli.child_server import Failed, Server

LOCK: Final = "keeper.lock"
STATE: Final = "state.json"

_POLL_S: Final = 0.02
_IDLE_POLL_S: Final = 0.2
#: Nothing is stored on disk, so nothing is lost when a server that is slow to end is killed.
_TERM_S: Final = 0.5
_LOCK_ATTEMPTS: Final = 50


class Owner:
    """The process at the other end of standard input."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._unread = b""
        self._open = True
        self._terminated = False

    def terminate(self, *_: object) -> None:
        """Note a SIGTERM; a flag and no exception, so that it cannot interrupt a clean-up."""
        self._terminated = True

    def gone(self) -> bool:
        """Tell whether the servers have to stop."""
        # A fork of the owner may hold the pipe open after the owner died: its pid tells. Looked
        # at before the pipe, so that a last word of a dead owner is heard.
        dead = os.getppid() != self._pid
        self._read(0)
        kept = b"keep\n" in self._unread
        return self._terminated or ((dead or not self._open) and not kept)

    def line(self) -> bytes | None:
        """Wait for the next line; None when the owner has gone."""
        while b"\n" not in self._unread and not self.gone():
            self.wait(_IDLE_POLL_S)
        line, found, self._unread = self._unread.partition(b"\n")
        return line if found else None

    def wait(self, seconds: float) -> None:
        """Wait, and no longer than until the owner goes or says something."""
        if self._open:
            self._read(seconds)
        else:
            time.sleep(seconds)

    def _read(self, seconds: float) -> None:
        if self._open and select.select([0], [], [], seconds)[0]:
            data = os.read(0, 65536)
            self._open = bool(data)
            self._unread += data

    def answer(self, message: dict[str, Any]) -> None:
        """Send the one line that the owner waits for; an owner that has died is no error."""
        with contextlib.suppress(OSError):
            os.write(1, json.dumps(message).encode() + b"\n")


def claim(folder: Path) -> int:
    """Lock a lasting folder for as long as the returned descriptor is open.

    Raises:
        Failed: another keeper has it, or what is in it is not ours.
    """
    if folder.exists() and not (folder / LOCK).exists() and any(folder.iterdir()):
        raise Failed(f"{folder} holds files that are not ours; choose another state folder")
    for _ in range(_LOCK_ATTEMPTS):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        # A reader of the status holds the lock for a moment, and a keeper that ends removes the
        # file; a lock on a removed file would protect nothing.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), (folder / LOCK).stat()):
                (folder / STATE).unlink(missing_ok=True)
                return lock
        os.close(lock)
        time.sleep(_POLL_S)
    raise Failed(f"another command is starting or stopping the services of {folder}; try again")


def start_all(servers: list[Server], owner: Owner, timeout_s: float) -> None:
    """Start servers and return when each answers, or when the owner has gone.

    Raises:
        Failed: one ended, or does not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    for server in servers:
        server.start()
    while not owner.gone():
        for server in servers:
            if not server.ready:
                server.advance()
        waiting = [server for server in servers if not server.ready]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise waiting[0].failure(f"did not answer within {timeout_s:g} s")
        owner.wait(_POLL_S)


def stop_all(servers: list[Server]) -> None:
    """End every server: asked first, killed when it takes too long."""
    processes = [server.process for server in servers if server.process is not None]
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _TERM_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(owner: Owner, spec: dict[str, Any], folder: Path) -> None:
    """Run the servers until the owner goes.

    Raises:
        Failed: they do not start.
    """
    servers = [Server(each, folder) for each in spec["servers"]]
    try:
        start_all(servers, owner, spec["timeout_s"])
        known: dict[str, Any] | None = None
        while not owner.gone():
            state = {
                "folder": str(folder),
                "keeper_pid": os.getpid(),
                **{server.name: server.describe() for server in servers},
            }
            if state != known:
                # One that died is told, not hidden; the others go on with what they hold.
                new = folder / f"{STATE}.new"
                new.write_text(json.dumps(state))
                new.replace(folder / STATE)
            if known is None:
                owner.answer(state)
            known = state
            owner.wait(_IDLE_POLL_S)
    finally:
        stop_all(servers)


def run(owner: Owner, spec: dict[str, Any]) -> None:
    """Prepare the folder, serve, and remove the folder.

    Raises:
        Failed: the servers do not start, or the folder cannot be used.
    """
    lasting = spec["folder"]
    made = lasting or tempfile.mkdtemp(prefix="interest-services-")
    folder = Path(made).resolve()  # as the system tells it when the owner looks who works here
    made_parent = bool(lasting) and not folder.parent.exists()
    lock = claim(folder) if lasting else None
    try:
        os.chdir(folder)
        serve(owner, spec, folder)
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
        if made_parent:
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        if lock is not None:
            os.close(lock)


def main() -> None:
    """Serve the owner whose pid is the last argument; what goes wrong is answered in one line."""
    owner = Owner(int(sys.argv[-1]))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, owner.terminate)
    line = owner.line()
    if line is None:
        return
    try:
        run(owner, json.loads(line))
    except Failed as error:
        owner.answer({"error": str(error)})
    except OSError as error:
        owner.answer({"error": f"cannot start the services: {error}"})
    except Exception as error:  # the owner has to learn of a defect here as well
        owner.answer({"error": f"cannot start the services: {error!r}"})
