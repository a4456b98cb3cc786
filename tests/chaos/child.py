"""One worker process of a run: the real worker, a line to the harness, and hooks in its steps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from interest.event import decode_event
from interest.fold import window_of
from interest.item import EncodedItem, Item
from interest.metrics import NoMetrics
from interest.settings import Settings
from interest.window import Behaviour, BehaviourWindow
from interest_cli.replay import LoadedBundle
from interest_cli.wiring import open_worker
from streams.topics import TopicNames
from streams.worker import Worker
from tests.chaos.faults import FAULTS
from tests.chaos.hooks import AimedEncoder, Hooks
from tests.chaos.orders import Aim, Spec

log = logging.getLogger(__name__)

_STATUS_S: Final = 0.2
_ENCODE: Final = 256


class _Line:
    """The connection to the harness: JSON lines both ways."""

    def __init__(self, spec: Spec) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(spec.control)
        self._writer: asyncio.StreamWriter | None = None
        self.say({"hello": spec.name, "pid": os.getpid()})

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a message, from any thread; short ones go out in one piece."""
        with contextlib.suppress(OSError):  # the harness has gone, and so shall we
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    async def orders(self) -> asyncio.StreamReader:
        """Give the harness' side of the line."""
        # A writer that nobody holds closes the connection.
        reader, self._writer = await asyncio.open_unix_connection(sock=self._socket.dup())
        self._socket.setblocking(True)  # shared by both descriptors; asyncio reads what is there
        return reader


class Child:
    """Answers the orders of the harness for one worker."""

    def __init__(self, spec: Spec, loaded: LoadedBundle, line: _Line, hooks: Hooks) -> None:
        self._loaded = loaded
        self._line = line
        self._hooks = hooks
        self.worker: Worker | None = None

    async def listen(self) -> None:
        """Answer orders until the harness closes the line."""
        reader = await self._line.orders()
        answers: set[asyncio.Task[None]] = set()
        while raw := await reader.readline():
            task = asyncio.create_task(self._answer(json.loads(raw)))
            answers.add(task)
            task.add_done_callback(answers.discard)

    async def _answer(self, order: dict[str, Any]) -> None:
        try:
            result = await self._obey(order)
        except Exception as error:  # told, not raised: a worker in trouble is no defect of ours
            self._line.say({"id": order["id"], "error": repr(error)})
        else:
            self._line.say({"id": order["id"], "result": result})

    async def _obey(self, order: dict[str, Any]) -> Any:
        match order["op"]:
            case "aim":
                self._hooks.aim(msgspec.convert(order["aim"], Aim))
            case "release":
                self._hooks.release()
            case "changelog-fails":
                self._hooks.changelog_fails = order["on"]
            case "idle":
                return self.worker is not None and await self.worker.idle()
            case "waits":
                return waits()
            case "dump":
                assert self.worker is not None
                dump(self.worker, Path(order["path"]))
            case "encode":
                await asyncio.to_thread(encode, self._loaded, Path(order["path"]))
            case unknown:
                raise ValueError(f"unknown order {unknown}")
        return None

    async def tell(self) -> None:
        """Tell the harness what this worker owns, again and again."""
        while True:
            worker = self.worker
            if worker is not None and hasattr(worker, "windows"):
                owned = sorted(worker.windows.partitions)
                self._line.say({"owned": owned, "dirty": len(worker.dirty)})
            await asyncio.sleep(_STATUS_S)


def windows(worker: Worker) -> dict[str, list[dict[str, Any]]]:
    """Give the windows a worker holds: user → events, oldest first, as the contract names them.

    But for ``event_id``, of which a window keeps the hash: ``id_hash`` in hex.
    """
    return {
        subject_id: [event_fields(kept, subject_id) for kept in held.window.events]
        for partition in worker.windows.partitions.values()
        for subject_id, held in partition.held.items()
    }


def waits() -> dict[str, list[str]]:
    """Tell where each task waits: for a person, when a run does not come to rest."""
    return {
        task.get_name(): [
            f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
            for frame in task.get_stack()
        ]
        for task in asyncio.all_tasks()
    }


def dump(worker: Worker, path: Path) -> None:
    """Write the windows of a worker to a file."""
    path.write_bytes(msgspec.json.encode(windows(worker)))


def event_fields(kept: Behaviour, subject_id: str) -> dict[str, Any]:
    """Give the fields of an event that are there."""
    fields = {name: getattr(kept, name) for name in kept.__struct_fields__}
    fields["id_hash"] = kept.id_hash.hex()
    fields["user_id"] = kept.user_id or subject_id
    return {
        name: str(value) if name == "type" else value
        for name, value in fields.items()
        if value is not None and name != "schema"
    }


def encode(loaded: LoadedBundle, path: Path) -> None:
    """Encode the windows of a file in one go, and write ``users`` and ``vectors`` beside it.

    The file holds ``items`` (the catalogue) and ``windows`` (user → events), both as produced.
    """
    given = json.loads(path.read_bytes())
    items = [msgspec.convert(item, Item) for item in given["items"]]
    rows = loaded.item_encoder.encode_items(items)
    known = {
        item.item_id: EncodedItem(item=item, vector=row)
        for item, row in zip(items, rows, strict=True)
    }
    users = sorted(given["windows"])
    made = [_window(user, given["windows"][user]) for user in users]
    parts = [
        loaded.user_encoder.encode(made[first : first + _ENCODE], known)
        for first in range(0, len(made), _ENCODE)
    ]
    vectors = np.concatenate(parts) if parts else np.zeros((0, loaded.bundle.dim), np.float32)
    np.savez(path.with_suffix(".npz"), users=np.array(users), vectors=vectors)


def _window(user: str, events: Sequence[dict[str, Any]]) -> BehaviourWindow:
    decoded = (decode_event(json.dumps({**event, "user_id": user}).encode()) for event in events)
    return window_of(user, decoded)


async def _run(spec: Spec, loaded: LoadedBundle) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    settings = msgspec.convert(spec.settings, Settings)
    line = _Line(spec)
    hooks = Hooks(TopicNames.of(settings).windows, lambda step: line.say({"fired": step}))
    hooks.install()
    if spec.fault:
        FAULTS[spec.fault]()
    aimed = loaded._replace(user_encoder=AimedEncoder(loaded.user_encoder, hooks))
    child = Child(spec, loaded, line, hooks)
    listening = asyncio.create_task(child.listen())
    telling = asyncio.create_task(child.tell())
    try:
        async with open_worker(settings, aimed, NoMetrics()) as (worker, _, _):
            child.worker = worker
            line.say({"up": spec.name})
            await worker.failure()
    finally:
        listening.cancel()
        telling.cancel()


def main(spec: Spec, loaded: LoadedBundle) -> int:
    """Run a worker until SIGTERM or a failure; return the exit code of the process."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname).1s %(name)s: %(message)s",
        datefmt="%H:%M:%S", force=True,
    )  # fmt: skip
    try:
        asyncio.run(_run(spec, loaded))
    except asyncio.CancelledError:
        return 0
    except Exception:
        log.exception("the worker ends")
        return 5
    return 0
