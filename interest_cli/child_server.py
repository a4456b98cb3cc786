"""A child process that serves one port of 127.0.0.1: start it, see that it answers, say why not.

Standard library only: :mod:`interest_cli.keeper` runs without any site-packages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_PORT_ATTEMPTS: Final = 5
_LOG_LINES: Final = 6
_LOG_CHARS: Final = 800
_PR_SET_PDEATHSIG: Final = 1
_IN_USE: Final = re.compile(r"address (already )?in use|AddrInUse", re.IGNORECASE)
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


class Failed(Exception):
    """The servers cannot run; the text is one line for a person."""


class Server:
    """One child process on a port of 127.0.0.1."""

    def __init__(self, spec: dict[str, Any], folder: Path) -> None:
        self.name: str = spec["name"]
        self.ready = False
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"{self.name}.log"
        self._argv: list[str] = spec["argv"]
        self._fixed_port: int = spec["port"]
        self._probe = PROBES[spec["probe"]]
        self._attempts = 0
        self._folder = folder
        # Proof that it is our server which answers, and not another one on the same port.
        self._token = f"interest-{secrets.token_hex(8)}"

    def start(self) -> None:
        """Start the process on its port.

        Raises:
            Failed: the port is in use, or the program cannot be executed.
        """
        self._attempts += 1
        self.port = self._fixed_port or free_port()
        if self._fixed_port and in_use(self.port):
            raise self._port_in_use()
        fill = {"{port}": str(self.port), "{folder}": str(self._folder), "{token}": self._token}
        argv = list(self._argv)
        for hole, value in fill.items():
            argv = [part.replace(hole, value) for part in argv]
        with self.log.open("wb") as log:
            try:
                self.process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,  # by this the owner recognises our processes
                    env={"PATH": os.defpath},  # the broker would read options from ours
                    preexec_fn=die_with_parent(),
                )
            except OSError as error:
                raise Failed(f"cannot run {argv[0]}: {error.strerror}") from error

    def advance(self) -> None:
        """Start again when somebody took the port between choice and use; see if it answers.

        Raises:
            Failed: the process has ended.
        """
        process = self.process
        assert process is not None
        if process.poll() is None:
            self.ready = self._probe(self.port, process.pid, self._token)
        elif not _IN_USE.search(self._text()):
            raise self.failure(f"ended with exit code {process.returncode}")
        elif self._fixed_port or self._attempts >= _PORT_ATTEMPTS:
            raise self._port_in_use()
        else:
            self.start()

    def failure(self, what: str) -> Failed:
        """Say what happened, with the last lines of the log."""
        lines = [line.strip() for line in self._text().splitlines() if line.strip()]
        tail = " | ".join(lines[-_LOG_LINES:])[-_LOG_CHARS:] or "(empty)"
        return Failed(f"{self.name} did not start: it {what}; its log ends with: {tail}")

    def alive(self) -> bool:
        """Tell whether the process runs; reaps it when it has ended."""
        return self.process is not None and self.process.poll() is None

    def describe(self) -> dict[str, Any]:
        """Give what the owner has to know."""
        pid = self.process.pid if self.process else 0
        return {"pid": pid, "port": self.port, "alive": self.alive(), "log": str(self.log)}

    def _port_in_use(self) -> Failed:
        return Failed(
            f"port {self.port} for {self.name} is in use; stop what listens there, "
            f"or choose another one (--{self.name}-port, 0 takes a free one)"
        )

    def _text(self) -> str:
        return _COLOURS.sub("", self.log.read_text("utf-8", "replace"))


def free_port() -> int:
    """Choose a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def in_use(port: int) -> bool:
    """Tell whether a server could not listen on this port of 127.0.0.1."""
    # BSD lets one bind 127.0.0.1 beside somebody else's 0.0.0.0; a connection shows it.
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def die_with_parent() -> Callable[[], None] | None:
    """Give the call that ties a child's life to ours, where the system has one (Linux)."""
    if sys.platform != "linux":
        return None
    prctl, keeper = ctypes.CDLL(None).prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:  # it died before the call above
            os._exit(1)

    return tie


def _ask(port: int, request: bytes, until: Callable[[bytes], bool]) -> bytes:
    """Send a request and read until the answer is whole; give b"" when there is none."""
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as link:
        link.sendall(request)
        while not until(answer):
            data = link.recv(65536)
            if not data:
                return b""
            answer += data
        return answer
    return b""


def redis_answers(port: int, pid: int, _token: str) -> bool:
    """Tell whether this Redis process answers PING."""
    answer = _ask(port, b"INFO server\r\nPING\r\n", lambda got: got.endswith(b"+PONG\r\n"))
    return b"\r\nprocess_id:%d\r\n" % pid in answer


def kafka_answers(port: int, _pid: int, token: str) -> bool:
    """Tell whether the broker of our cluster answers a Metadata request (version 2, no topics)."""
    body = struct.pack(">hhihi", 3, 2, 1, -1, 0)
    answer = _ask(
        port,
        struct.pack(">i", len(body)) + body,
        lambda got: len(got) >= 4 and len(got) >= 4 + int(struct.unpack(">i", got[:4])[0]),
    )
    return token.encode() in answer


PROBES: Final = {"redis": redis_answers, "kafka": kafka_answers}
