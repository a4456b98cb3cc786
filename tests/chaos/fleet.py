"""The workers of a run: forked by the zygote, supervised, and told what to do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from interest.settings import Settings
from tests.chaos.orders import Action, Aim, Spec
from tests.chaos.processes import ROOT, SINGLE_THREADED, die_with
from tests.chaos.services import HarnessFailed

_READY_S: Final = 120.0
_ASK_S: Final = 10.0
_RESTART_S: Final = 0.1
_END_S: Final = 60.0
#: Exit code of a worker process that the harness could not prepare.
DEFECT: Final = 70
_LINE_BYTES: Final = 16 * 1024 * 1024


class Away(Exception):
    """A worker did not answer: it is stopped, or dead, or still starting."""


class WorkerProcess:
    """One worker process, as the harness sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = 0
        self.up = False
        self.gone = asyncio.Event()
        self.expected_end = False
        #: Partitions it said it holds, when it last could say so.
        self.owned: frozenset[int] = frozenset()
        self.fired: list[str] = []
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count()

    def __repr__(self) -> str:
        return f"{self.name}[{self.pid}]"

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by SIGSTOP at the moment."""
        try:
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
        except psutil.NoSuchProcess:
            return False

    @property
    def works(self) -> bool:
        """Whether it is started, alive and not stopped."""
        return self.up and not self.gone.is_set() and not self.stopped

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended is no error."""
        if self.pid and not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ask(self, op: str, wait_s: float = _ASK_S, **order: Any) -> Any:
        """Give an order and return the answer.

        Raises:
            Away: it did not answer in time, or said why it cannot.
        """
        if self._writer is None or self.gone.is_set():
            raise Away(f"{self} has no line")
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps({"id": number, "op": op, **order}).encode() + b"\n")
        try:
            return await asyncio.wait_for(answer, wait_s)
        except TimeoutError as error:
            raise Away(f"{self} did not answer {op} in {wait_s:g} s") from error
        finally:
            self._answers.pop(number, None)

    async def aim(self, step: str, action: Action, user: str = "") -> None:
        """Order what happens when it comes to a step."""
        await self.ask("aim", aim=msgspec.to_builtins(Aim(step, action, user)))

    def connected(self, writer: asyncio.StreamWriter) -> None:
        """Take the line the process opened."""
        self._writer = writer

    def heard(self, message: dict[str, Any]) -> None:
        """Take what the process said."""
        if "id" in message:
            answer = self._answers.get(message["id"])
            if answer is not None and not answer.done():
                if "error" in message:
                    answer.set_exception(Away(f"{self}: {message['error']}"))
                else:
                    answer.set_result(message["result"])
        elif "owned" in message:
            self.owned = frozenset(message["owned"])
        elif "up" in message:
            self.up = True
        elif "fired" in message:
            self.fired.append(message["fired"])

    def ended(self) -> None:
        """Note the end of the process."""
        self.gone.set()
        self.up = False
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Away(f"{self} has ended"))


class Fleet:
    """Starts workers, starts those again that end, and keeps count."""

    def __init__(self, folder: Path, settings: Settings, fault: str = "") -> None:
        self._folder = folder
        self._settings = settings
        self._fault = fault
        self._control = str(folder / "control")
        self._zygote: asyncio.subprocess.Process | None = None
        self._server: asyncio.Server | None = None
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._by_name: dict[str, WorkerProcess] = {}
        self._ready = asyncio.Event()
        #: Whether workers that end are replaced.
        self.supervised = True
        self.n_wanted = 0
        #: Ends that nobody ordered: a worker gave up.
        self.surprises: list[str] = []
        #: Set when a worker cannot even be prepared.
        self.defect = ""

    async def start(self) -> None:
        """Load the model in the zygote; return when workers can be forked.

        Raises:
            HarnessFailed: it ended instead.
        """
        self._server = await asyncio.start_unix_server(
            self._on_line, self._control, limit=_LINE_BYTES
        )
        with (self._folder / "zygote.log").open("wb") as log:
            self._zygote = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "tests.chaos.zygote",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT,
                env={**os.environ, **SINGLE_THREADED}, start_new_session=True,
                preexec_fn=die_with(os.getpid()), limit=_LINE_BYTES,
            )  # fmt: skip
        self._reading = asyncio.create_task(self._read_zygote())
        try:
            await asyncio.wait_for(self._ready.wait(), _READY_S)
        except TimeoutError as error:
            raise HarnessFailed(f"the zygote did not start: {self._tail()}") from error
        if self._reading.done():
            raise HarnessFailed(f"the zygote ended: {self._tail()}")

    def _tail(self) -> str:
        return (self._folder / "zygote.log").read_text("utf-8", "replace")[-800:]

    async def _read_zygote(self) -> None:
        assert self._zygote is not None
        assert self._zygote.stdout is not None
        while raw := await self._zygote.stdout.readline():
            message = json.loads(raw)
            if "ready" in message:
                self._ready.set()
            elif "spawned" in message:
                self._by_name[message["name"]].pid = message["spawned"]
            elif "exited" in message:
                self._on_exit(message["exited"], message["status"])
        self._ready.set()

    def _on_exit(self, pid: int, status: int) -> None:
        for worker in self._by_name.values():
            if worker.pid == pid and not worker.gone.is_set():
                worker.ended()
                if status == DEFECT:
                    self.defect = f"{worker} has a defect of the harness, see its log"
                if not worker.expected_end and status not in (-9, -15, 0):
                    self.surprises.append(f"{worker} ended with {status}")
                if self.supervised:
                    loop = asyncio.get_running_loop()
                    loop.call_later(_RESTART_S, self._refill)

    def _refill(self) -> None:
        while self.supervised and len(self.alive) < self.n_wanted:
            self.spawn()

    async def _on_line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker: WorkerProcess | None = None
        # Cancelled when the harness ends; asyncio would report that as a failure.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while raw := await reader.readline():
                message = json.loads(raw)
                if "hello" in message:
                    worker = self._by_name[message["hello"]]
                    worker.pid = message["pid"]
                    worker.connected(writer)
                elif worker is not None:
                    worker.heard(message)
        writer.close()

    @property
    def alive(self) -> list[WorkerProcess]:
        """Every worker that has not ended, stopped ones too."""
        return [worker for worker in self._by_name.values() if not worker.gone.is_set()]

    @property
    def working(self) -> list[WorkerProcess]:
        """The workers that are up and not stopped."""
        return [worker for worker in self.alive if worker.works]

    def owner(
        self, partition: int, other_than: WorkerProcess | None = None
    ) -> WorkerProcess | None:
        """Give the one working worker that says it holds a partition."""
        holders = [
            worker
            for worker in self.working
            if partition in worker.owned and worker is not other_than
        ]
        return holders[0] if len(holders) == 1 else None

    def spawn(self) -> WorkerProcess:
        """Fork a worker."""
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        name = f"worker-{next(self._numbers)}"
        worker = self._by_name[name] = WorkerProcess(name)
        spec = Spec(
            name=name, control=self._control, log=str(self._folder / f"{name}.log"),
            settings=msgspec.to_builtins(self._settings),
            fault=self._fault,
        )  # fmt: skip
        self._zygote.stdin.write(json.dumps({"spawn": msgspec.to_builtins(spec)}).encode() + b"\n")
        return worker

    def scale(self, n: int) -> None:
        """Want ``n`` workers: start those that are missing, end the youngest of too many."""
        self.n_wanted = n
        for worker in self.alive[n:]:
            worker.expected_end = True
            worker.signal(signal.SIGCONT)
            worker.signal(signal.SIGTERM)
        self._refill()

    async def end_all(self) -> None:
        """End every worker in order; none is started again until ``supervised`` is set.

        Raises:
            HarnessFailed: one does not end.
        """
        self.supervised = False
        self.wake_all()
        for worker in self.alive:
            worker.expected_end = True
            worker.signal(signal.SIGTERM)
        for worker in self.alive:
            try:
                await asyncio.wait_for(worker.gone.wait(), _END_S)
            except TimeoutError as error:
                raise HarnessFailed(f"{worker} does not end by SIGTERM") from error

    def wake_all(self) -> None:
        """Let every stopped worker go on."""
        for worker in self.alive:
            worker.signal(signal.SIGCONT)

    async def release_all(self) -> None:
        """Forget all aims and let held steps go on."""
        for worker in self.working:
            with contextlib.suppress(Away):
                await worker.ask("release", 2.0)

    async def stop(self) -> None:
        """End everything; nothing of the run's processes is left."""
        self.supervised = False
        zygote = self._zygote
        if zygote is not None:
            # Workers are in the zygote's session; a stopped one dies of SIGKILL too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(zygote.pid, signal.SIGKILL)
            await zygote.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._server is not None:
            self._server.close()
