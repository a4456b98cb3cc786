"""User vectors in Redis. The layout is a contract: ``docs/contracts.md``, section Redis.

A script inside Redis compares tokens, so a worker that lost its partition cannot overwrite its
successor, however late it wakes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import AuthenticationError, NoScriptError, RedisError

from interest.bundle import LiveModel
from interest.errors import BadInput, CorruptRecord, ServiceUnavailable
from interest.ports import RecentBehaviour, UserState, VectorUpdate
from interest.vector import (
    HEADER_BYTES,
    MAGIC,
    TOKEN_OFFSET,
    Token,
    VectorHead,
    head_from_bytes,
    vector_from_bytes,
    vector_to_bytes,
)
from store.upsert_script import UPSERT, UPSERT_SHA

_TOKEN: Final = struct.Struct("<IIQ")
_RECENT_FIELD: Final = "recent"
_TIMEOUT_S: Final = 5.0
#: More calls than this at once wait for a connection, as long as for an answer.
_CONNECTIONS: Final = 64
_READ: Final = 500
_POPULAR_ITEMS: Final = 1_000

_recent_encoder = msgspec.msgpack.Encoder()
_recent_decoder = msgspec.msgpack.Decoder(tuple[RecentBehaviour, ...])
_live_decoder = msgspec.json.Decoder(LiveModel)
_scores_decoder = msgspec.msgpack.Decoder(dict[str, float])


class RedisUserVectors:
    """The port ``UserVectorStore`` over one Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        prefix: put before every key.
        ttl_s: a user's hash expires so long after its last upsert; 0 keeps it.

    Raises:
        BadInput: the URL is none.
    """

    def __init__(self, url: str, *, prefix: str = "interest:", ttl_s: int = 0) -> None:
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=_TIMEOUT_S,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
            )
        except ValueError:
            # Neither the URL nor the parser's words (nor its traceback): a password may be in both.
            raise BadInput(
                "INTEREST_REDIS_URL is no Redis URL: redis://, rediss:// or unix://, special "
                "characters of a password percent-encoded"
            ) from None
        self._redis: Redis = Redis.from_pool(pool)
        self._prefix = prefix
        self._ttl_s = ttl_s

    def user_key(self, user_id: str) -> str:
        """Name a user's hash.

        Everything of a user is in one key, so that the script needs no hash tag, whatever braces
        an id holds: they decide on a cluster's slot and on nothing else.
        """
        return f"{self._prefix}user:{user_id}"

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            # Without any password redis-py meets the refusal as an answer to its HELLO.
            if isinstance(error, AuthenticationError) or "authenticat" in str(error):
                raise ServiceUnavailable(
                    f"Redis refuses the password or user ({error}); see INTEREST_REDIS_URL"
                ) from error
            raise ServiceUnavailable(f"Redis: {error or type(error).__name__}") from error
        except UnicodeEncodeError as error:  # a shell's argument may hold any bytes
            raise BadInput(f"the id {error.object!r} is no valid Unicode text") from error

    async def ping(self) -> None:
        """Return if Redis answers and takes writes; a read-only or full one does not."""
        async with self._translated():
            await self._redis.set(f"{self._prefix}ping", b"", ex=60)

    async def upsert(self, updates: Sequence[VectorUpdate]) -> list[Token | None]:
        """Store vectors in one pipeline, each unless a higher token is there."""
        if not updates:
            return []
        async with self._translated():
            try:
                answers = await self._run_upserts(updates)
            except NoScriptError:
                # Redis was restarted, or its scripts were flushed.
                await self._redis.script_load(UPSERT)
                answers = await self._run_upserts(updates)
        return [None if answer is None else Token(*_TOKEN.unpack(answer)) for answer in answers]

    async def _run_upserts(self, updates: Sequence[VectorUpdate]) -> list[bytes | None]:
        pipeline = self._redis.pipeline(transaction=False)
        for update in updates:
            record = vector_to_bytes(update.vector)
            recent = record[TOKEN_OFFSET : TOKEN_OFFSET + 16] + _recent_encoder.encode(
                update.recent
            )
            pipeline.evalsha(
                UPSERT_SHA,
                1,
                self.user_key(update.vector.user_id),
                update.vector.model_id,
                record,
                recent,
                self._ttl_s,
            )
        # An error of one command must not hide that the others were carried out: a retry of
        # all is safe, since an equal token is accepted.
        answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return list(answers)

    async def fetch(self, user_ids: Sequence[str], model_id: str) -> list[UserState | None]:
        """Read users; None where a user has no record for this model.

        Raises:
            CorruptRecord: somebody else wrote the field.
        """
        states: list[UserState | None] = []
        for user_id, (raw, recent) in zip(
            user_ids, await self._fields(user_ids, [model_id, _RECENT_FIELD]), strict=True
        ):
            if raw is None:
                states.append(None)
                continue
            try:
                vector = vector_from_bytes(raw, user_id, model_id)
                states.append(UserState(vector, _read_recent(recent) if recent else ()))
            except BadInput as error:  # numbers that are no unit vector are as damaged as others
                raise CorruptRecord(f"user {user_id!r}, model {model_id}: {error}") from error
        return states

    async def fetch_heads(self, user_ids: Sequence[str], model_id: str) -> list[VectorHead | None]:
        """Read tokens and encode times alone; a damaged record counts as none: write it again."""
        return [
            head_from_bytes(raw) if raw is not None and _has_head(raw) else None
            for (raw,) in await self._fields(user_ids, [model_id])
        ]

    async def _fields(self, user_ids: Sequence[str], fields: list[str]) -> list[list[bytes | None]]:
        found: list[list[bytes | None]] = []
        async with self._translated():
            for first in range(0, len(user_ids), _READ):
                pipeline = self._redis.pipeline(transaction=False)
                for user_id in user_ids[first : first + _READ]:
                    pipeline.hmget(self.user_key(user_id), fields)
                found.extend(await pipeline.execute())
        return found

    async def live_model(self) -> LiveModel | None:
        """Read the live-model pointer."""
        async with self._translated():
            raw = await self._redis.get(f"{self._prefix}live")
        if raw is None:
            return None
        try:
            return _live_decoder.decode(raw)
        except msgspec.DecodeError as error:
            raise CorruptRecord(f"the live-model pointer is damaged: {error}") from error

    async def set_live_model(self, live: LiveModel) -> None:
        """Point readers to another model and collection, in one step."""
        async with self._translated():
            await self._redis.set(f"{self._prefix}live", msgspec.json.encode(live))

    async def publish_popular(self, partition: int, scores: Mapping[str, float]) -> None:
        """Replace the popular items of one partition, the best 1,000 of them."""
        best = dict(_ranked(scores)[:_POPULAR_ITEMS])
        async with self._translated():
            await self._redis.hset(
                f"{self._prefix}popular", str(partition), msgspec.msgpack.encode(best)
            )

    async def fetch_popular(self, k: int) -> list[tuple[str, float]]:
        """Add up the partitions (log-sum-exp, base 2); give the best ``k``, ties by item id.

        Raises:
            CorruptRecord: somebody else wrote the field.
        """
        async with self._translated():
            partitions = await self._redis.hgetall(f"{self._prefix}popular")
        total: dict[str, float] = {}
        for raw in partitions.values():
            for item_id, score in _read_scores(cast(bytes, raw)).items():
                held = total.get(item_id)
                total[item_id] = score if held is None else _log2_sum(held, score)
        return _ranked(total)[:k]

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()


def _read_recent(raw: bytes) -> tuple[RecentBehaviour, ...]:
    try:
        return _recent_decoder.decode(raw[_TOKEN.size :])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"recent behaviours of {len(raw)} bytes: {error}") from error


def _has_head(raw: bytes) -> bool:
    """Tell what the script tells; a later format of ours counts, so that it is not overwritten."""
    return len(raw) >= HEADER_BYTES and raw.startswith(MAGIC[:3])


def _read_scores(raw: bytes) -> dict[str, float]:
    try:
        return _scores_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"popular items of {len(raw)} bytes: {error}") from error


def _log2_sum(a: float, b: float) -> float:
    """Give log2(2^a + 2^b) without leaving the range of a float."""
    return max(a, b) + math.log2(1 + 2.0 ** -abs(a - b))


def _ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
