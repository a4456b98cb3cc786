"""Places in a worker at which it can be killed, stopped or held: before and after each step.

The steps are wrapped from outside, at the narrowest names there are; the product knows nothing
of this. A step is named ``before-`` or ``after-`` and ``encode``, ``upsert``, ``changelog`` or
``commit``; ``before-commit-request`` lies between the check of the generation and the request,
``before-recovery`` before the changelog is read (its "user" is the topic).
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from aiokafka.consumer.group_coordinator import GroupCoordinator
from numpy.typing import NDArray

from interest.item import EncodedItem
from interest.ports import UserEncoder
from interest.window import BehaviourWindow
from store.redis_vectors import RedisUserVectors
from streams.outbox import Outbox, Record
from streams.transport import ChunkConsumer
from tests.chaos.orders import TOXIC, Aim

_HOLD_POLL_S: Final = 0.01

_SIGNALS: Final = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}


class Hooks:
    """The aims of one worker."""

    def __init__(self, changelog: str, fired: Callable[[str], None]) -> None:
        self._aims: list[Aim] = []
        self._held = 0
        self._changelog = changelog
        self._fired = fired
        self._lock = threading.Lock()
        #: While set, no record reaches the changelog.
        self.changelog_fails = False

    def aim(self, aim: Aim) -> None:
        """Add an aim."""
        with self._lock:
            self._aims.append(aim)

    def release(self) -> None:
        """Let every held step go on, and forget the aims that have not been met."""
        with self._lock:
            self._aims.clear()
            self._held += 1

    def _met(self, step: str, users: Collection[str]) -> Aim | None:
        with self._lock:
            for aim in self._aims:
                if aim.step == step and (not aim.user or aim.user in users):
                    self._aims.remove(aim)
                    return aim
        return None

    def _signal(self, aim: Aim) -> None:
        if aim.action == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            # To this thread: it stops here, and not some lines further on.
            signal.pthread_kill(threading.get_ident(), _SIGNALS[aim.action])

    def sync(self, step: str, users: Collection[str]) -> None:
        """Come to a step outside a loop."""
        aim = self._met(step, users)
        if aim is None:
            return
        self._fired(step)
        if aim.action != "hold":
            self._signal(aim)
            return
        held = self._held
        while self._held == held:
            time.sleep(_HOLD_POLL_S)

    async def at(self, step: str, users: Collection[str] = ()) -> None:
        """Come to a step of a coroutine, on any loop."""
        aim = self._met(step, users)
        if aim is None:
            return
        self._fired(step)
        if aim.action != "hold":
            self._signal(aim)
            return
        held = self._held
        while self._held == held:
            await asyncio.sleep(_HOLD_POLL_S)

    def install(self) -> None:
        """Wrap upsert, changelog send and commit of this process."""
        hooks, changelog = self, self._changelog
        upsert, send_all, attempt = RedisUserVectors.upsert, Outbox.send_all, Outbox._attempt
        highwaters = ChunkConsumer.highwaters
        commit, request = ChunkConsumer.commit_offsets, GroupCoordinator._do_commit_offsets

        async def upsert_at(self: RedisUserVectors, updates: Sequence[Any]) -> Any:
            users = [_user_of(update) for update in updates]
            await hooks.at("before-upsert", users)
            answer = await upsert(self, updates)
            await hooks.at("after-upsert", users)
            return answer

        async def send_all_at(self: Outbox, records: Sequence[Record]) -> None:
            users = [_text(record.key) for record in records if record.topic == changelog]
            if users:
                await hooks.at("before-changelog", users)
            await send_all(self, records)
            if users:
                await hooks.at("after-changelog", users)

        async def attempt_at(self: Outbox, records: Sequence[Record]) -> Any:
            if hooks.changelog_fails and any(record.topic == changelog for record in records):
                kept = [record for record in records if record.topic != changelog]
                failed = [record for record in records if record.topic == changelog]
                return failed + list(await attempt(self, kept))
            return await attempt(self, records)

        async def commit_at(self: ChunkConsumer, *args: Any, **kwargs: Any) -> Any:
            await hooks.at("before-commit")
            answer = await commit(self, *args, **kwargs)
            await hooks.at("after-commit")
            return answer

        async def request_at(self: Any, assignment: Any, offsets: Mapping[Any, Any]) -> Any:
            if offsets:
                await hooks.at("before-commit-request")
            return await request(self, assignment, offsets)

        async def highwaters_at(self: ChunkConsumer, *partitions: Any) -> Any:
            await hooks.at("before-recovery", {tp.topic for tp in partitions})
            return await highwaters(self, *partitions)

        ChunkConsumer.highwaters = highwaters_at  # type: ignore[method-assign,assignment]
        RedisUserVectors.upsert = upsert_at  # type: ignore[method-assign]
        Outbox.send_all = send_all_at  # type: ignore[method-assign]
        Outbox._attempt = attempt_at  # type: ignore[method-assign]
        ChunkConsumer.commit_offsets = commit_at  # type: ignore[method-assign]
        GroupCoordinator._do_commit_offsets = request_at


def _text(key: bytes | None) -> str:
    return (key or b"").decode(errors="replace")


def _user_of(update: Any) -> str:
    return str(update.vector.user_id)


class AimedEncoder:
    """The user encoder with its steps, and with events that it cannot encode."""

    def __init__(self, encoder: UserEncoder, hooks: Hooks) -> None:
        self._encoder = encoder
        self._hooks = hooks

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._encoder.dim

    def n_tokens(self, window: BehaviourWindow) -> int:
        """Estimate the cost of a window."""
        return self._encoder.n_tokens(window)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        """Encode, unless a text forbids it.

        Raises:
            ValueError: a window holds an event that cannot be encoded.
        """
        users = [window.subject_id for window in windows]
        self._hooks.sync("before-encode", users)
        for window in windows:
            if any(TOXIC in (event.text or "") for event in window.events):
                raise ValueError(f"a text of {window.subject_id} {TOXIC}")
        rows = self._encoder.encode(windows, items)
        self._hooks.sync("after-encode", users)
        return rows
