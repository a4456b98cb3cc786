"""User vectors at rest in Redis: encrypted where keys are set, and bound to their place."""

from __future__ import annotations

import struct
import uuid
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from interest.errors import CorruptRecord
from interest.ports import Sealer, VectorUpdate
from interest.recent import recent_from_bytes
from interest.sealing import IN_THE_CLEAR
from interest.vector import HEADER_BYTES, Token
from store.aes_sealer import AesSealer
from store.redis_vectors import RedisUserVectors
from tests.contract.conftest import RedisServer
from tests.contract.test_user_vector_store import MODEL, TOKENS, many_recent, update

ONE, TWO = (1, bytes(range(32))), (2, bytes(range(32, 64)))


def opened(server: RedisServer, prefix: str, sealer: Sealer) -> RedisUserVectors:
    return RedisUserVectors(server.url, prefix=prefix, sealer=sealer)


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4().hex}:"


@pytest.fixture
async def store(redis_server: RedisServer, prefix: str) -> AsyncIterator[RedisUserVectors]:
    made = opened(redis_server, prefix, AesSealer([ONE]))
    yield made
    await made.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Any:
    with redis_server.client as made:
        yield made


@pytest.mark.parametrize("n", [0, 1])
async def test_what_was_sealed_is_read_back(store: RedisUserVectors, n: int) -> None:
    await store.upsert([update(n=n)])
    [state] = await store.fetch(["u"], MODEL)
    assert state is not None
    assert np.array_equal(state.vector.vectors, update(n=n).vector.vectors)
    assert state.recent == recent_from_bytes(update().recent)
    assert await store.fetch_heads(["u"], MODEL) == [(Token(0, 1, 1), 2_000)]


async def test_redis_holds_the_documented_bytes(store: RedisUserVectors, client: Any) -> None:
    await store.upsert([update(token=Token(7, 8, 9))])
    fields = client.hgetall(store.user_key("u"))
    raw, recent = fields[MODEL.encode()], fields[b"recent"]
    assert struct.unpack_from("<4sBBHHHiIIQqqq8s", raw) == (
        b"IUV1", 1, 1, 3, 1, 2, 3, 7, 8, 9, 1_000, 2_000, 4, bytes(8),
    )  # fmt: skip
    assert raw[HEADER_BYTES : HEADER_BYTES + 6] == b"\xc1\x01" + struct.pack("<I", 1)
    assert len(raw) == HEADER_BYTES + 10 + 24 + 3 * 4 + 16
    assert update().vector.vectors.tobytes() not in raw
    assert struct.unpack_from("<IIQ", recent) == (7, 8, 9)
    assert recent[16] == 0x91, "an array, by which the script knows a sound field"
    assert b"item-9" not in recent
    assert b"click" not in recent


async def test_sealed_records_keep_the_order_of_tokens(store: RedisUserVectors) -> None:
    for i in np.random.default_rng(3).permutation(len(TOKENS)):
        await store.upsert([update(token=TOKENS[i])])
    [state] = await store.fetch(["u"], MODEL)
    assert state is not None
    assert state.vector.token == max(TOKENS)
    assert state.recent[0].item_id == f"item-{max(TOKENS).revision}"
    many = VectorUpdate(update("v", Token(0, 1, 9)).vector, many_recent(50))
    await store.upsert([many])
    await store.upsert([update("v", Token(0, 1, 4), model="staged")])
    [state] = await store.fetch(["v"], MODEL)
    assert state is not None
    assert state.recent == recent_from_bytes(many.recent)


async def test_a_record_cannot_stand_for_another(store: RedisUserVectors, client: Any) -> None:
    """Whoever writes to Redis, but has no key, can give nobody the interests of another."""
    await store.upsert([update("a"), update("b"), update("a", model="staged")])
    a, b = store.user_key("a"), store.user_key("b")
    sound = client.hgetall(b)
    for field in (MODEL, "recent"):
        client.hset(b, field, client.hget(a, field))
        with pytest.raises(CorruptRecord, match="moved"):
            await store.fetch(["b"], MODEL)
        client.hset(b, mapping=sound)
    client.hset(a, MODEL, client.hget(a, "staged"))
    with pytest.raises(CorruptRecord, match="moved"):
        await store.fetch(["a"], MODEL)
    client.hset(b, MODEL, sound[MODEL.encode()][:32] + bytes(16) + sound[MODEL.encode()][48:])
    with pytest.raises(CorruptRecord, match="moved"):
        await store.fetch(["b"], MODEL)  # its times were changed
    assert await store.upsert([update("a"), update("b")]) == [None, None], "sound ones replace it"
    assert all(await store.fetch(["a", "b"], MODEL))


async def test_encryption_is_turned_on_and_keys_are_rotated_without_a_rewrite(
    redis_server: RedisServer, prefix: str
) -> None:
    steps: list[Sealer] = [IN_THE_CLEAR, AesSealer([ONE]), AesSealer([TWO, ONE])]
    for i, sealer in enumerate(steps):
        store = opened(redis_server, prefix, sealer)
        await store.upsert([update(f"u{i}")])
        assert all(await store.fetch([f"u{j}" for j in range(i + 1)], MODEL))
        await store.close()


@pytest.mark.parametrize("sealer", [IN_THE_CLEAR, AesSealer([TWO]), AesSealer([(1, TWO[1])])])
async def test_without_its_key_a_record_is_damaged_and_its_key_is_named(
    redis_server: RedisServer, prefix: str, store: RedisUserVectors, sealer: Sealer
) -> None:
    await store.upsert([update()])
    other = opened(redis_server, prefix, sealer)
    with pytest.raises(CorruptRecord, match=r"key 1.*INTEREST_ENCRYPTION_KEYS"):
        await other.fetch(["u"], MODEL)
    assert await other.fetch_heads(["u"], MODEL) == [(Token(0, 1, 1), 2_000)], "needs no key"
    await other.close()
