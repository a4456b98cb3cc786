"""Reads of users under the live model, one round trip each, and one for all who ask together.

A record is named by the model, and the model by the live pointer. The pointer is read with every
read; that it still names the model it named before is a guess, made to ask for both at once, and
where the guess was wrong the user is asked for again. So no answer mixes two models.

There is no fixed delay: who asks while a round trip is under way shares the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from interest.bundle import LiveModel
from interest.errors import CorruptRecord
from store.redis_link import Commands, RedisLink
from store.user_records import RECENT_FIELD

_TOGETHER: Final = 200
_decoder = msgspec.json.Decoder(LiveModel)


class LiveFields(NamedTuple):
    """What Redis holds: the pointer, the user's record of that model, the recent behaviours."""

    live: LiveModel | None
    record: bytes | None
    recent: bytes | None


class _Asked(NamedTuple):
    key: str
    recent: bool
    answer: asyncio.Future[LiveFields]


def live_from_bytes(raw: bytes | None) -> LiveModel | None:
    """Read the live-model pointer.

    Raises:
        CorruptRecord: somebody else wrote it.
    """
    if raw is None:
        return None
    try:
        return _decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise CorruptRecord(f"the live-model pointer is damaged: {error}") from error


class LiveReads:
    """Shares round trips between readers.

    Args:
        live_key: where the pointer is.
    """

    def __init__(self, link: RedisLink, live_key: str) -> None:
        self._link = link
        self._live_key = live_key
        self._waiting: list[_Asked] = []
        self._reading: asyncio.Task[None] | None = None
        self._raw: bytes | None = None
        self._live: LiveModel | None = None

    async def fetch(self, key: str, *, recent: bool) -> LiveFields:
        """Read a user's hash.

        Raises:
            ServiceUnavailable: Redis does not answer.
            CorruptRecord: somebody else wrote the pointer.
        """
        answer: asyncio.Future[LiveFields] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(key, recent, answer))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return await answer

    async def _read_all(self) -> None:
        try:
            while self._waiting:
                part, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
                asked = [one for one in part if not one.answer.done()]  # a caller may have left
                try:
                    await self._read(asked)
                except Exception as error:
                    for one in asked:
                        if not one.answer.done():
                            one.answer.set_exception(error)
                finally:
                    for one in asked:
                        one.answer.cancel()  # if it has no answer by now, it gets none
        finally:
            self._reading = None

    async def _read(self, asked: list[_Asked]) -> None:
        while asked:
            guess = self._live
            raw, *found = await self._link.ask(partial(self._queue, asked, guess))
            if raw != self._raw:
                self._live, self._raw = live_from_bytes(raw), raw
            if self._live is not None and self._live != guess:
                continue
            for one, fields in zip(asked, found, strict=True):
                record, recent = (*(fields or (None,)), None)[:2]
                if not one.answer.done():
                    one.answer.set_result(LiveFields(self._live, record, recent))
            return

    def _queue(self, asked: Sequence[_Asked], guess: LiveModel | None, pipeline: Commands) -> None:
        pipeline.get(self._live_key)
        field = "" if guess is None else guess.model_id
        for one in asked:
            pipeline.hmget(one.key, [field, RECENT_FIELD] if one.recent else [field])

    async def close(self) -> None:
        """Stop reading; who waits for an answer is cancelled."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        for one in self._waiting:
            one.answer.cancel()
