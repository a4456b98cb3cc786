"""A Redis that is sick, wrongly addressed, or holds damaged records."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from interest.errors import BadInput, CorruptRecord, ServiceUnavailable
from interest.ports import VectorUpdate
from interest.recent import recent_from_bytes
from interest.vector import HEADER_BYTES, Token, vector_to_bytes
from store import redis_link
from store.redis_vectors import RedisUserVectors
from tests.contract.conftest import RedisServer, running_redis
from tests.contract.test_user_vector_store import MODEL, many_recent, update


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisUserVectors]:
    made = RedisUserVectors(redis_server.url, prefix=f"{uuid.uuid4().hex}:")
    yield made
    await made.close()


@pytest.mark.parametrize("raw", [b"", b"\xff" * 20, b"\xff" * 64, b"\xff" * 500])
async def test_no_damaged_record_can_hold_a_user_for_ever(
    store: RedisUserVectors, redis_server: RedisServer, raw: bytes
) -> None:
    """Read as a token, bytes of 0xff would outrank every true one."""
    client = redis_server.client
    client.hset(store.user_key("u"), MODEL, raw)
    client.close()
    assert await store.fetch_heads(["u"], MODEL) == [None], "reconcile takes it for missing"
    assert await store.upsert([update()]) == [None]
    assert (await store.fetch(["u"], MODEL))[0] is not None


@pytest.mark.parametrize("raw", [b"", b"\xff" * 16, b"\xff" * 40])
async def test_no_damaged_recent_behaviours_can_hold_a_user_for_ever(
    store: RedisUserVectors, redis_server: RedisServer, raw: bytes
) -> None:
    client = redis_server.client
    client.hset(store.user_key("u"), "recent", raw)
    client.close()
    assert await store.upsert([update()]) == [None]
    [state] = await store.fetch(["u"], MODEL)
    assert state is not None
    assert state.recent == recent_from_bytes(update().recent)


async def test_many_recent_behaviours_keep_their_higher_token(store: RedisUserVectors) -> None:
    """MessagePack writes a longer array with another first byte."""
    for n in (0, 15, 16, 50):
        user = f"u{n}"
        long = VectorUpdate(update(user, Token(0, 1, 9)).vector, many_recent(n))
        await store.upsert([long])
        await store.upsert([update(user, Token(0, 1, 4), model="staged")])
        [state] = await store.fetch([user], MODEL)
        assert state is not None
        assert state.recent == recent_from_bytes(long.recent)


async def test_an_id_that_is_no_unicode_is_refused(store: RedisUserVectors) -> None:
    with pytest.raises(BadInput, match="Unicode"):
        await store.fetch(["\udcff"], MODEL)


async def test_numbers_that_are_no_unit_vector_are_a_damaged_record(
    store: RedisUserVectors, redis_server: RedisServer
) -> None:
    """The API answers a caller's mistake with 4xx; this is none."""
    raw = vector_to_bytes(update().vector)
    client = redis_server.client
    client.hset(store.user_key("u"), MODEL, raw[:HEADER_BYTES] + b"\xff" * (len(raw) - 64))
    client.close()
    with pytest.raises(CorruptRecord, match=f"model {MODEL}"):
        await store.fetch(["u"], MODEL)


async def test_damaged_popular_items_are_named(
    store: RedisUserVectors, redis_server: RedisServer
) -> None:
    await store.publish_popular(0, {"a": 1.0})
    client = redis_server.client
    [key] = client.keys(store.user_key("").replace("user:", "popular"))
    client.hset(key, "1", msgspec.msgpack.encode(["no", "map"]))
    client.close()
    with pytest.raises(CorruptRecord, match="popular"):
        await store.fetch_popular(3)


async def test_an_expiry_ends_with_its_setting(
    store: RedisUserVectors, redis_server: RedisServer
) -> None:
    prefix = store.user_key("").removesuffix("user:")
    brief = RedisUserVectors(redis_server.url, prefix=prefix, ttl_s=100)
    await brief.upsert([update()])
    await brief.close()
    client = redis_server.client
    assert client.ttl(store.user_key("u")) > 0
    await store.upsert([update()])
    assert client.ttl(store.user_key("u")) == -1, "0 keeps it, also where it once expired"
    client.close()


async def test_a_refused_upsert_changes_nothing(
    store: RedisUserVectors, redis_server: RedisServer
) -> None:
    await store.upsert([update(token=Token(0, 2, 5))])
    client = redis_server.client
    before = client.hgetall(store.user_key("u"))
    await store.upsert([update(token=Token(0, 1, 9))])
    assert client.hgetall(store.user_key("u")) == before
    client.close()


async def test_more_calls_at_once_than_connections_wait_for_their_turn(
    store: RedisUserVectors, redis_server: RedisServer
) -> None:
    await store.upsert([update()])
    states = await asyncio.gather(*(store.fetch(["u"], MODEL) for _ in range(500)))
    assert all(state is not None for [state] in states)
    client = redis_server.client
    info: Any = client.info("clients")
    client.close()
    assert info["connected_clients"] <= 64 + 10


async def test_a_redis_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "_TIMEOUT_S", 0.2)
    with running_redis(tmp_path) as server:
        assert server.process is not None
        store = RedisUserVectors(server.url)
        await store.upsert([update()])
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(ServiceUnavailable, match=r"(?i)timeout"):
                await store.fetch(["u"], MODEL)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        assert await store.upsert([update()]) == [None]
        await store.close()


async def test_a_redis_that_still_loads_its_data_is_not_ready(tmp_path: Path) -> None:
    # 20 ms for each key of the snapshot; it looks at its sockets every 2 MB, so every 0.2 s.
    with running_redis(tmp_path, "--key-load-delay", "20000") as server:
        store = RedisUserVectors(server.url)
        client = server.client
        client.mset({f"k{i}": os.urandom(200_000) for i in range(400)})
        client.save()
        client.close()
        server.stop()
        server.start(loaded=False)
        with pytest.raises(ServiceUnavailable, match=r"(?i)loading"):
            await store.ping()
        with pytest.raises(ServiceUnavailable, match=r"(?i)loading"):
            await store.upsert([update()])
        await store.close()


@pytest.mark.parametrize("credentials", [":wrong@", "nobody:secret@"])
async def test_credentials_that_are_refused_are_named(tmp_path: Path, credentials: str) -> None:
    with running_redis(tmp_path) as server:
        client = server.client
        client.config_set("requirepass", "secret")
        client.close()
        store = RedisUserVectors(server.url.replace("unix://", f"unix://{credentials}"))
        with pytest.raises(ServiceUnavailable, match="password") as caught:
            await store.ping()
        assert "wrong" not in str(caught.value).replace("wrong number", "")
        assert "secret" not in str(caught.value)
        await store.close()


async def test_a_user_without_the_right_to_write_is_not_ready(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        client = server.client
        client.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], categories=["+@read"])
        client.close()
        store = RedisUserVectors(server.url.replace("unix://", "unix://reader:x@"))
        with pytest.raises(ServiceUnavailable, match=r"(?i)permission"):
            await store.ping()
        await store.close()


@pytest.mark.parametrize(
    "url", ["redis://:s3cret@h:port/0", "redis://:s3cret/x@h:1/0", "http://:s3cret@h"]
)
def test_a_wrong_url_does_not_show_its_password(url: str) -> None:
    with pytest.raises(BadInput, match="INTEREST_REDIS_URL") as caught:
        RedisUserVectors(url)
    assert "s3cret" not in str(caught.value)
