"""User vectors in Redis. The layout is a contract: ``docs/contracts.md``, section Redis.

A script inside Redis compares tokens, so a worker that lost its partition cannot overwrite its
successor, however late it wakes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec
import numpy as np
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from interest.bundle import LiveModel
from interest.errors import BadInput
from interest.forgetting import Marker
from interest.ports import LiveUser, Sealer, UserState, VectorUpdate
from interest.sealing import IN_THE_CLEAR
from interest.tls import TlsFiles
from interest.vector import Token, VectorHead, check_rows
from store.live_reads import LiveReads, live_from_bytes
from store.markers import MarkerKeys, marker_from_bytes, marker_to_bytes
from store.popularity import most_popular, scores_to_bytes
from store.redis_link import RedisLink, is_foreign, starting_with
from store.scripts import FORGET, KNOWS, MARK, SWEEP, UPSERT, Script
from store.user_records import RECENT_FIELD, UserRecords, head_of

log = logging.getLogger(__name__)

_TOKEN: Final = struct.Struct("<IIQ")
_READ: Final = 500
#: Fields that one call of the upsert script writes, two a user. Redis does nothing else meanwhile.
_TOGETHER: Final = 64


class _Call(NamedTuple):
    """One call of the upsert script: several users of one model."""

    model_id: str
    keys: list[str]
    records: list[bytes]


class RedisUserVectors:
    """The port ``UserVectorStore`` over one Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        prefix: put before every key.
        ttl_s: a user's hash expires so long after its last upsert; 0 keeps it.
        forget_key: the secret of the hash that remains of a forgotten user.
        marker_ttl_s: that marker expires so long after it was last left; 0 keeps it.
        sealer: encrypts vectors and recent behaviours at rest.
        tls: files for ``rediss://``.

    Raises:
        BadInput: the URL is none, or the prefix has a brace without its partner.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "interest:",
        ttl_s: int = 0,
        forget_key: str = "",
        marker_ttl_s: int = 0,
        sealer: Sealer = IN_THE_CLEAR,
        tls: TlsFiles | None = None,
    ) -> None:
        self._link = RedisLink(url) if tls is None else RedisLink(url, tls)
        self._redis = self._link.redis
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._marker_ttl_s = marker_ttl_s
        self._markers = MarkerKeys(prefix, forget_key)
        self._records = UserRecords(sealer)
        self._reads = LiveReads(self._link, f"{prefix}live")

    def user_key(self, user_id: str) -> str:
        """Name a user's hash.

        Everything of a user is in one key, so that the script needs no hash tag, whatever braces
        an id holds: they decide on a cluster's slot and on nothing else.
        """
        return f"{self._prefix}user:{user_id}"

    async def ping(self) -> None:
        """Return if Redis answers and takes writes; a read-only or full one does not."""
        async with self._link.translated():
            await self._redis.set(f"{self._prefix}ping", b"", ex=60)

    async def upsert(self, updates: Sequence[VectorUpdate]) -> list[Token | Marker | None]:
        """Store vectors in one pipeline, each unless a higher token or a marker is there."""
        if not updates:
            return []
        rows = [update.vector.vectors for update in updates]
        check_rows(np.concatenate(rows), updates[0].vector.model_id)
        marks = [self._mark_of(update.vector.user_id) for update in updates]
        calls: list[_Call] = []
        for update, mark in zip(updates, marks, strict=True):
            model_id = update.vector.model_id
            if not calls or len(calls[-1].records) >= _TOGETHER or calls[-1].model_id != model_id:
                await asyncio.sleep(0)  # a batch is thousands of bytes a user; others have a turn
                calls.append(_Call(model_id, [], []))
            call = calls[-1]
            call.keys.extend((self.user_key(update.vector.user_id), self._markers.key(*mark)))
            call.records.extend(self._records.fields(update))

        def queue(pipeline: Pipeline) -> None:
            for model_id, keys, records in calls:
                pipeline.evalsha(UPSERT.sha, len(keys), *keys, model_id, self._ttl_s, *records)

        answers = list(itertools.chain.from_iterable(await self._link.run(queue)))
        n_foreign = sum(isinstance(answer, int) for answer in answers)
        if n_foreign:
            log.warning("%d keys of Redis held something foreign and were replaced", n_foreign)
        return [_refusal(*entry) for entry in zip(answers, marks, strict=True)]

    async def forget(self, user_id: str, marker: Marker) -> Marker:
        """Remove all of a user and leave the marker, in one step."""
        hashed, place = self._mark_of(user_id)
        if hashed != marker.subject_hash:
            raise BadInput("the marker was made with another INTEREST_FORGET_KEY")

        def queue(pipeline: Pipeline) -> None:
            keys = self.user_key(user_id), self._markers.key(hashed, place)
            pipeline.evalsha(FORGET.sha, 2, *keys, marker_to_bytes(marker), self._marker_ttl_s)

        [answer] = await self._link.run(queue)
        return marker_from_bytes(answer, hashed, place)

    async def restore_markers(self, markers: Sequence[Marker]) -> int:
        """Leave markers again; where one was missing, scan all users and remove what it outranks.

        Raises:
            BadInput: a marker without its place, so one that ``forget`` did not answer.
        """
        if any(not marker.place for marker in markers):
            raise BadInput("a marker without its place cannot be found again in Redis")
        known = await self._for_each(KNOWS, markers)
        missing = [marker for marker, answer in zip(markers, known, strict=True) if answer is None]
        # Before the markers are left: what ends this in the middle must not hide that they were
        # missing.
        n_removed = await self._sweep({marker.subject_hash: marker for marker in missing})
        await self._for_each(MARK, markers, self._marker_ttl_s)
        return n_removed

    async def _for_each(self, script: Script, markers: Sequence[Marker], *args: int) -> list[Any]:
        def queue(pipeline: Pipeline) -> None:
            for marker in part:
                key = self._markers.key(marker.subject_hash, marker.place)
                pipeline.evalsha(script.sha, 1, key, marker_to_bytes(marker), *args)

        answers: list[Any] = []
        for first in range(0, len(markers), _READ):
            part = markers[first : first + _READ]
            answers += await self._link.run(queue)
        return answers

    async def _sweep(self, missing: Mapping[bytes, Marker]) -> int:
        start = self.user_key("").encode()
        cursor, n_removed = 0, 0

        def queue(pipeline: Pipeline) -> None:
            for user_id, (hashed, place) in found:
                keys = self.user_key(user_id), self._markers.key(hashed, place)
                marker = marker_to_bytes(missing[hashed])
                pipeline.evalsha(SWEEP.sha, 2, *keys, marker, self._marker_ttl_s)

        while missing:
            async with self._link.translated():
                cursor, keys = await self._redis.scan(cursor, starting_with(start), _READ)
            users = [cast(bytes, key)[len(start) :].decode(errors="replace") for key in keys]
            found = [(u, mark) for u in users if (mark := self._mark_of(u))[0] in missing]
            if found:
                n_removed += sum(n > 0 for n in await self._link.run(queue))
            if not cursor:
                break
        return n_removed

    def _mark_of(self, user_id: str) -> tuple[bytes, int]:
        return self._markers.hash(user_id), self._markers.place(self.user_key(user_id))

    async def fetch(self, user_ids: Sequence[str], model_id: str) -> list[UserState | None]:
        """Read users; None where a user has no record for this model.

        Raises:
            CorruptRecord: somebody else wrote the field.
        """
        return [
            None if record is None else self._records.state(user_id, model_id, record, recent)
            for user_id, (record, recent) in zip(
                user_ids, await self._fields(user_ids, [model_id, RECENT_FIELD]), strict=True
            )
        ]

    async def fetch_live(self, user_id: str, *, recent: bool) -> LiveUser:
        """Read the live-model pointer and one user's record of that model.

        Raises:
            CorruptRecord: somebody else wrote the pointer or a field.
        """
        live, record, behaviours = await self._reads.fetch(self.user_key(user_id), recent=recent)
        if live is None or record is None:
            return LiveUser(live, None)
        return LiveUser(live, self._records.state(user_id, live.model_id, record, behaviours))

    async def fetch_heads(self, user_ids: Sequence[str], model_id: str) -> list[VectorHead | None]:
        """Read tokens and encode times alone; a damaged record counts as none: write it again."""
        return [head_of(record) for (record,) in await self._fields(user_ids, [model_id])]

    async def _fields(self, user_ids: Sequence[str], fields: list[str]) -> list[list[bytes | None]]:
        """Read fields; a key that is no hash has none, until an upsert replaces it."""

        def queue(pipeline: Pipeline) -> None:
            for user_id in part:
                pipeline.hmget(self.user_key(user_id), fields)

        found: list[list[bytes | None]] = []
        for first in range(0, len(user_ids), _READ):
            part = user_ids[first : first + _READ]
            found += [answer or [None] * len(fields) for answer in await self._link.ask(queue)]
        return found

    async def epoch(self) -> str:
        """Name the life of the data: the server's run id, and a random name kept with the data.

        A restart changes the first, and with it a failover and the restoring of an older copy;
        whatever empties Redis removes the second.
        """
        key = f"{self._prefix}epoch"
        async with self._link.translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.set(key, uuid.uuid4().hex, nx=True)
            pipeline.get(key)
            pipeline.info("server")
            _, name, server = await pipeline.execute()
        return f"{server['run_id']}/{(name or b'').decode(errors='replace')}"

    async def live_model(self) -> LiveModel | None:
        """Read the live-model pointer."""
        async with self._link.translated():
            raw = await self._redis.get(f"{self._prefix}live")
        return live_from_bytes(cast("bytes | None", raw))

    async def set_live_model(self, live: LiveModel) -> None:
        """Point readers to another model and collection, in one step."""
        async with self._link.translated():
            await self._redis.set(f"{self._prefix}live", msgspec.json.encode(live))

    async def publish_popular(self, partition: int, scores: Mapping[str, float]) -> None:
        """Replace the popular items of one partition, the best 1,000 of them."""
        key, record = f"{self._prefix}popular", scores_to_bytes(scores)
        async with self._link.translated():
            try:
                await self._redis.hset(key, str(partition), record)
            except ResponseError as error:
                if not is_foreign(error):
                    raise
                log.warning("the popular items in Redis were no hash and are replaced")
                await self._redis.delete(key)
                await self._redis.hset(key, str(partition), record)

    async def fetch_popular(self, k: int) -> list[tuple[str, float]]:
        """Add up the partitions (log-sum-exp, base 2); give the best ``k``, ties by item id.

        Raises:
            CorruptRecord: somebody else wrote the field.
        """
        async with self._link.translated():
            partitions = await self._redis.hgetall(f"{self._prefix}popular")
        return most_popular((cast(bytes, raw) for raw in partitions.values()), k)

    async def close(self) -> None:
        """Give the connections back."""
        await self._reads.close()
        await self._link.close()


def _refusal(answer: bytes | int | None, mark: tuple[bytes, int]) -> Token | Marker | None:
    """Read what the upsert script answers."""
    if not isinstance(answer, bytes):
        return None
    if len(answer) == _TOKEN.size:
        return Token(*_TOKEN.unpack(answer))
    return marker_from_bytes(answer, *mark)
