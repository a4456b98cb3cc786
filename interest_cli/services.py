"""A real broker and a real Redis on this machine, without Docker and without a trace.

The broker is Tansu (memory storage), the Redis is a redis-server without persistence: what they
hold ends with them, in both uses.

* :class:`EmbeddedServices`, for the demo and tests: they live as long as the ``with`` block, and
  end with this process in whatever way it ends, SIGKILL included (see :mod:`interest_cli.keeper`).
* :func:`services_up`, :func:`services_down`, :func:`services_status`, for development: they stay
  up after the command.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec
import psutil

from interest.errors import ServiceUnavailable
from interest_cli.keeper import LOCK, STATE
from interest_cli.owner import Keeper, RunningServices, find_ours, spec_of, sweep

_READY_S: Final = 20.0
_STOP_S: Final = 15.0
_POLL_S: Final = 0.02
#: Inside the state folder, so that removing it cannot touch anything else there.
_FOLDER: Final = "services"


class ServicesReport(msgspec.Struct, frozen=True):
    """What is up now, and whether this command changed it."""

    services: RunningServices | None
    changed: bool


class EmbeddedServices:
    """A broker and a Redis for the length of a ``with`` block.

    Args:
        kafka_port: 0 takes a free one.
        redis_port: 0 takes a free one.
        ready_s: how long both may take to answer.
    """

    def __init__(
        self, *, kafka_port: int = 0, redis_port: int = 0, ready_s: float = _READY_S
    ) -> None:
        self._ports = (kafka_port, redis_port)
        self._ready_s = ready_s
        self._keeper: Keeper | None = None

    def __enter__(self) -> EmbeddedServices:
        """Start both and return when both answer.

        Raises:
            ServiceUnavailable: a program is not installed, a port is in use, or a server ended;
                nothing is left running.
        """
        self._keeper = Keeper(spec_of(*self._ports, self._ready_s))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop both and remove their folder."""
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None

    @property
    def running(self) -> RunningServices:
        """The processes, as they were at the start."""
        if self._keeper is None:
            raise RuntimeError("the services run only inside the with block")
        return self._keeper.services

    @property
    def kafka_bootstrap(self) -> str:
        """``host:port`` of the broker."""
        return self.running.kafka_bootstrap

    @property
    def redis_url(self) -> str:
        """URL of the Redis, database 0."""
        return self.running.redis_url


def services_up(state_dir: Path, *, kafka_port: int = 0, redis_port: int = 0) -> ServicesReport:
    """Start both for development, or report those of this state folder that run already.

    They stay up until :func:`services_down`; port 0 takes a free one.

    Raises:
        ServiceUnavailable: they cannot be started (see :class:`EmbeddedServices`), or only one
            of a pair that was started before still runs.
    """
    folder = _folder(state_dir)
    services = _running(folder)
    if services is not None and not services.alive:
        dead = "redis" if services.kafka.alive else "kafka"
        raise ServiceUnavailable(
            f"{dead} of {state_dir} has died, see {getattr(services, dead).log}; "
            "`interest services down` ends the rest, then start again"
        )
    if services is not None:
        return ServicesReport(services, changed=False)
    _clear(folder)
    spec = spec_of(kafka_port, redis_port, _READY_S, folder)
    try:
        return ServicesReport(Keeper(spec).release(), changed=True)
    except ServiceUnavailable:
        services = _running(folder)
        if services is None:
            raise
        # Another `up` was a little faster.
        return ServicesReport(services, changed=False)


def services_down(state_dir: Path) -> ServicesReport:
    """Stop the services of a state folder; none running is no error.

    Raises:
        ServiceUnavailable: they do not end.
    """
    folder = _folder(state_dir)
    services = _running(folder)
    if services is None:
        return ServicesReport(None, changed=_clear(folder))
    keeper = find_ours(services.keeper_pid, folder)
    if keeper is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            keeper.terminate()
            try:
                keeper.wait(_STOP_S)
            except psutil.TimeoutExpired:
                keeper.kill()
    _until(lambda: not _locked(folder), _STOP_S)
    if _locked(folder):
        raise ServiceUnavailable(f"process {services.keeper_pid} does not end; kill it by hand")
    _clear(folder)
    return ServicesReport(None, changed=True)


def services_status(state_dir: Path) -> ServicesReport:
    """Report the services of a state folder; a dead server is marked as not alive."""
    return ServicesReport(_running(_folder(state_dir)), changed=False)


def _folder(state_dir: Path) -> Path:
    return state_dir.resolve() / _FOLDER


def _locked(folder: Path) -> bool:
    """Tell whether a keeper lives here; the kernel drops its lock when it dies."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ServiceUnavailable(f"cannot read the state of the services: {error}") from error
    return False


def _state(folder: Path) -> RunningServices | None:
    try:
        return msgspec.json.decode((folder / STATE).read_bytes(), type=RunningServices)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _running(folder: Path) -> RunningServices | None:
    """Read what runs here; waits for a start or a stop that is under way."""
    _until(lambda: not _locked(folder) or _state(folder) is not None, _READY_S)
    return _state(folder) if _locked(folder) else None


def _clear(folder: Path) -> bool:
    """Remove what a killed keeper left; tell whether there was something."""
    try:
        with (folder / LOCK).open("rb") as lock:
            # Held meanwhile, so that it is not a starting keeper whose folder we remove.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = _state(folder)
            if left is not None:
                sweep(left)
            shutil.rmtree(folder, ignore_errors=True)
    except (BlockingIOError, FileNotFoundError, NotADirectoryError):
        return False
    return True


def _until(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
