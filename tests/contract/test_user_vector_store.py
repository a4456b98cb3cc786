"""The port ``UserVectorStore`` over a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import struct
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interest.bundle import LiveModel
from interest.errors import BadInput, CorruptRecord, ServiceUnavailable
from interest.event import EventType
from interest.item import unit
from interest.ports import VectorUpdate
from interest.recent import RecentBehaviour, recent_from_bytes, recent_to_bytes
from interest.vector import Token, UserVector
from store.redis_vectors import RedisUserVectors
from tests.contract.conftest import RedisServer, running_redis

MODEL = "0123456789abcdef"
FIRST = Token(0, 1, 1)


def update(
    user_id: str = "u", token: Token = FIRST, *, model: str = MODEL, n: int = 1
) -> VectorUpdate:
    rows = unit(np.array([[token.revision % 97 + 1, 2.0, 3.0]])) if n else np.zeros((0, 3))
    vector = UserVector(
        user_id=user_id, model_id=model, token=token, event_time_ms=1_000, encode_time_ms=2_000,
        n_events=2, vectors=rows.astype(np.float32), source_partition=3, source_offset=4,
    )  # fmt: skip
    recent = RecentBehaviour(EventType.CLICK, 1_000, f"item-{token.revision}")
    search = RecentBehaviour(EventType.SEARCH, 900, None, "mug 杯")
    return VectorUpdate(vector, recent_to_bytes((recent, search)))


def many_recent(n: int) -> bytes:
    return recent_to_bytes([RecentBehaviour(EventType.CLICK, 1_000, "item-1")] * n)


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisUserVectors]:
    made = RedisUserVectors(redis_server.url, prefix=f"{uuid.uuid4().hex}:")
    yield made
    await made.close()


async def test_what_was_stored_is_read_back(store: RedisUserVectors) -> None:
    await store.ping()
    assert await store.upsert([update("a"), update("b", n=0)]) == [None, None]
    a, missing, b = await store.fetch(["a", "missing", "b"], MODEL)
    assert missing is None
    assert a is not None
    assert b is not None
    assert np.array_equal(a.vector.vectors, update("a").vector.vectors)
    assert a.recent == recent_from_bytes(update("a").recent)
    assert a.vector.token == (0, 1, 1)
    assert b.vector.is_cold
    assert await store.fetch_heads(["a", "missing"], MODEL) == [(Token(0, 1, 1), 2_000), None]
    assert await store.upsert([]) == []


TOKENS = [
    Token(0, 0, 0),
    Token(0, 0, 1),
    Token(0, 0, 2**53),
    Token(0, 0, 2**53 + 1),
    Token(0, 0, 2**64 - 1),
    Token(0, 1, 0),
    Token(0, 255, 9),
    Token(0, 256, 1),
    Token(0, 2**32 - 1, 0),
    Token(1, 0, 0),
    Token(2**32 - 1, 0, 0),
]


@pytest.mark.parametrize(("lower", "higher"), list(itertools.pairwise(TOKENS)))
async def test_a_lower_token_is_refused_and_told_the_higher(
    store: RedisUserVectors, lower: Token, higher: Token
) -> None:
    assert await store.upsert([update(token=lower)]) == [None]
    assert await store.upsert([update(token=higher)]) == [None]
    assert await store.upsert([update(token=lower)]) == [higher]
    assert await store.upsert([update(token=higher)]) == [None], "equal is accepted"
    [state] = await store.fetch(["u"], MODEL)
    assert state is not None
    assert state.vector.token == higher
    assert state.recent[0].item_id == f"item-{higher.revision}"


@pytest.mark.parametrize("seed", range(5))
async def test_the_highest_token_stays_whatever_the_order_of_writes(
    store: RedisUserVectors, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(TOKENS))
    await asyncio.gather(*(store.upsert([update(token=TOKENS[i])]) for i in order))
    assert await store.fetch_heads(["u"], MODEL) == [(max(TOKENS), 2_000)]


tokens = st.builds(
    Token,
    st.sampled_from([0, 1, 255, 256, 2**31, 2**32 - 1]),
    st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 256]),
    st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**53, 2**53 + 1, 2**64 - 1]),
)


@settings(max_examples=60, deadline=None)
@given(order=st.lists(tokens, min_size=1, max_size=8).flatmap(st.permutations))
def test_each_write_is_refused_by_the_highest_before_it_and_by_nothing_else(
    redis_server: RedisServer, order: list[Token]
) -> None:
    async def write() -> None:
        store = RedisUserVectors(redis_server.url, prefix=f"{uuid.uuid4().hex}:")
        for i, token in enumerate(order):
            highest = max(order[: i + 1])
            refused_by = None if token == highest else highest
            assert await store.upsert([update(token=token)]) == [refused_by]
        [state] = await store.fetch(["u"], MODEL)
        assert state is not None
        assert state.vector.token == max(order)
        assert state.recent[0].item_id == f"item-{max(order).revision}"
        await store.close()

    asyncio.run(write())


@pytest.fixture
def english(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A locale that does not order strings by their bytes, made here and inherited by Redis."""
    make = shutil.which("localedef")
    folder = tmp_path_factory.mktemp("locales")
    words = [make or "localedef", "-i", "en_US", "-f", "UTF-8", str(folder / "en_US.UTF-8")]
    if make is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("localedef cannot make en_US.UTF-8 here")
    monkeypatch.setenv("LOCPATH", str(folder))
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")


@pytest.mark.usefixtures("english")
async def test_the_order_of_tokens_does_not_depend_on_the_servers_locale(tmp_path: Path) -> None:
    """Lua compares strings by the locale, which Redis takes from its environment."""
    with running_redis(tmp_path) as server:
        store = RedisUserVectors(server.url)
        rng = np.random.default_rng(0)
        for i in range(300):
            a, b = sorted(Token(0, *map(int, rng.integers(0, 400, 2))) for _ in range(2))
            user = f"u{i}"
            await store.upsert([update(user, b)])
            assert await store.upsert([update(user, a)]) == [None if a == b else b]
        await store.close()


async def test_two_models_live_side_by_side_and_the_newer_window_is_recent(
    store: RedisUserVectors,
) -> None:
    await store.upsert([update(token=Token(0, 1, 9))])
    await store.upsert([update(token=Token(0, 1, 4), model="staged")])
    [live] = await store.fetch(["u"], MODEL)
    [staged] = await store.fetch(["u"], "staged")
    assert live is not None
    assert staged is not None
    assert (live.vector.token.revision, staged.vector.token.revision) == (9, 4)
    assert staged.recent[0].item_id == "item-9"


async def test_the_record_has_the_documented_bytes(
    store: RedisUserVectors, redis_server: RedisServer
) -> None:
    await store.upsert([update(token=Token(7, 8, 9))])
    client = redis_server.client
    fields: Any = client.hgetall(store.user_key("u"))
    client.close()
    raw = fields[MODEL.encode()]
    assert struct.unpack_from("<4sBBHHHiIIQqqq8s", raw) == (
        b"IUV1", 1, 0, 3, 1, 2, 3, 7, 8, 9, 1_000, 2_000, 4, bytes(8),
    )  # fmt: skip
    assert len(raw) == 64 + 3 * 4
    recent = fields[b"recent"]
    assert struct.unpack_from("<IIQ", recent) == (7, 8, 9)
    assert msgspec.msgpack.decode(recent[16:]) == [
        struct.pack("<QQ", 900 << 16 | 6 << 8, 1_000 << 16 | 1 << 8),
        [None, "item-9"],
        {0: "mug 杯"},
    ]


@pytest.mark.parametrize(
    "user_id", ["用户", "x" * 256, "{a}{b}", "a:b", "line\nbreak", "nul\0", " ", "😀"]
)
async def test_any_user_id_will_do(store: RedisUserVectors, user_id: str) -> None:
    await store.upsert([update(user_id)])
    [state] = await store.fetch([user_id], MODEL)
    assert state is not None
    assert state.vector.user_id == user_id


async def test_a_batch_larger_than_a_pipeline_keeps_its_order(store: RedisUserVectors) -> None:
    users = [f"u{i}" for i in range(1_203)]
    await store.upsert([update(u, Token(0, 1, i)) for i, u in enumerate(users)])
    heads = await store.fetch_heads(users, MODEL)
    assert [head.token.revision for head in heads if head] == list(range(1_203))


async def test_a_flushed_script_is_loaded_again(
    store: RedisUserVectors, redis_server: RedisServer
) -> None:
    await store.upsert([update()])
    client = redis_server.client
    client.script_flush()
    client.close()
    assert await store.upsert([update(token=Token(0, 1, 2))]) == [None]


async def test_a_record_expires_when_it_is_told_to(redis_server: RedisServer) -> None:
    store = RedisUserVectors(redis_server.url, prefix=f"{uuid.uuid4().hex}:", ttl_s=1234)
    await store.upsert([update()])
    client = redis_server.client
    assert client.ttl(store.user_key("u")) in range(1_200, 1_235)
    client.close()
    await store.close()


async def test_a_damaged_record_is_named(
    store: RedisUserVectors, redis_server: RedisServer
) -> None:
    client = redis_server.client
    client.hset(store.user_key("u"), MODEL, b"IUV1 and nothing else")
    client.close()
    with pytest.raises(CorruptRecord):
        await store.fetch(["u"], MODEL)
    assert await store.upsert([update()]) == [None], "a good record replaces it"


async def test_the_live_pointer_is_one_thing(store: RedisUserVectors) -> None:
    assert await store.live_model() is None
    for name in ("one", "two"):
        live = LiveModel(model_id=name, collection=f"items-{name}", dim=3)
        await store.set_live_model(live)
        assert await store.live_model() == live


async def test_popular_items_of_partitions_add_up(store: RedisUserVectors) -> None:
    assert await store.fetch_popular(5) == []
    await store.publish_popular(0, {"a": 10.0, "b": 9.0})
    await store.publish_popular(1, {"b": 10.0, "c": 3.0})
    ranked = await store.fetch_popular(2)
    assert [item_id for item_id, _ in ranked] == ["b", "a"]
    assert ranked[0][1] == pytest.approx(np.log2(2**9 + 2**10))
    await store.publish_popular(1, {})
    assert [item_id for item_id, _ in await store.fetch_popular(9)] == ["a", "b"]


async def test_redis_that_is_away_is_one_clear_line_and_comes_back(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        store = RedisUserVectors(server.url)
        await store.upsert([update()])
        server.stop()
        with pytest.raises(ServiceUnavailable, match="Redis"):
            await store.upsert([update()])
        with pytest.raises(ServiceUnavailable, match="Redis"):
            await store.ping()
        server.start()
        assert await store.upsert([update()]) == [None]
        await store.close()


async def test_a_full_redis_is_not_ready_and_loses_nothing_stored(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        store = RedisUserVectors(server.url)
        await store.upsert([update()])
        client = server.client
        client.config_set("maxmemory", 1)
        with pytest.raises(ServiceUnavailable, match=r"(?i)memory"):
            await store.upsert([update("v")])
        with pytest.raises(ServiceUnavailable, match=r"(?i)memory"):
            await store.ping()
        assert (await store.fetch(["u"], MODEL))[0] is not None
        client.config_set("maxmemory", 0)
        assert await store.upsert([update("v")]) == [None]
        client.close()
        await store.close()


async def test_a_read_only_redis_is_not_ready(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--replicaof", "127.0.0.1", "1") as server:
        store = RedisUserVectors(server.url)
        with pytest.raises(ServiceUnavailable, match=r"(?i)read only|readonly|masterdown"):
            await store.ping()
        with pytest.raises(ServiceUnavailable):
            await store.upsert([update()])
        await store.close()


async def test_a_wrong_password_says_so(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        client = server.client
        client.config_set("requirepass", "secret")
        store = RedisUserVectors(server.url)
        with pytest.raises(ServiceUnavailable, match="password"):
            await store.ping()
        await store.close()
        client.close()


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="INTEREST_REDIS_URL"):
        RedisUserVectors("localhost:6379")


@pytest.mark.parametrize("value", [3.0, np.nan])
async def test_a_vector_that_is_no_unit_vector_is_refused(
    store: RedisUserVectors, value: float
) -> None:
    bad = update("b")
    rows = np.array([[value, 0, 0]], np.float32)
    bad = msgspec.structs.replace(bad, vector=msgspec.structs.replace(bad.vector, vectors=rows))
    with pytest.raises(BadInput):
        await store.upsert([update("a"), bad])
    assert await store.fetch(["a", "b"], MODEL) == [None, None]


async def test_a_vector_can_be_read_without_what_lies_beside_it(store: RedisUserVectors) -> None:
    await store.upsert([update("u")])
    assert await store.fetch_live("u", recent=True) == (None, None), "no live model is set"
    live = LiveModel(model_id=MODEL, collection="items", dim=3)
    await store.set_live_model(live)
    for recent in (False, True):
        found, state = await store.fetch_live("u", recent=recent)
        assert found == live
        assert state is not None
        assert state.vector.token == FIRST
        assert np.array_equal(state.vector.vectors, update("u").vector.vectors)
        assert len(state.recent) == (2 if recent else 0)
    assert await store.fetch_live("who", recent=True) == (live, None)


async def test_readers_follow_the_pointer_with_every_read(store: RedisUserVectors) -> None:
    """Also who reads together with others, and also where the pointer moves in between."""
    other = "fedcba9876543210"
    users = [f"u{i}" for i in range(450)]
    for model in (MODEL, other):
        await store.upsert([update(user, model=model) for user in users])
    for model in (MODEL, other, MODEL):
        await store.set_live_model(LiveModel(model_id=model, collection="items", dim=3))
        found = await asyncio.gather(*(store.fetch_live(u, recent=False) for u in users))
        for user, (live, state) in zip(users, found, strict=True):
            assert live is not None
            assert state is not None
            assert (live.model_id, state.vector.model_id, state.vector.user_id) == (
                model, model, user,
            )  # fmt: skip


async def test_a_reader_who_leaves_takes_nobodys_answer_along(store: RedisUserVectors) -> None:
    await store.upsert([update("u")])
    await store.set_live_model(LiveModel(model_id=MODEL, collection="items", dim=3))
    reads = [asyncio.ensure_future(store.fetch_live("u", recent=False)) for _ in range(5)]
    await asyncio.sleep(0)
    reads[0].cancel()
    reads[3].cancel()
    found = await asyncio.gather(*reads, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in found] == [
        True, False, False, True, False,
    ]  # fmt: skip
    last = asyncio.ensure_future(store.fetch_live("u", recent=False))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(asyncio.CancelledError):
        await last


async def test_a_damaged_pointer_fails_every_read_and_no_later_one(
    store: RedisUserVectors, redis_server: RedisServer
) -> None:
    client = redis_server.client
    key = store.user_key("").removesuffix("user:") + "live"
    client.set(key, b"nonsense")
    reads = [store.fetch_live("u", recent=False) for _ in range(3)]
    for answer in await asyncio.gather(*reads, return_exceptions=True):
        assert isinstance(answer, CorruptRecord)
    client.delete(key)
    client.close()
    assert await store.fetch_live("u", recent=False) == (None, None)


async def test_a_batch_is_answered_user_by_user_in_its_order(store: RedisUserVectors) -> None:
    """Users share calls of the script; what refuses one must not be told of another."""
    users = [f"u{i}" for i in range(150)]
    await store.upsert([update(user, Token(0, 2, i)) for i, user in enumerate(users)])
    again = [update(user, Token(0, 2, i - i % 2)) for i, user in enumerate(users)]
    again.insert(70, update("other", model="fedcba9876543210"))
    answers = await store.upsert(again)
    assert answers.pop(70) is None
    assert answers == [Token(0, 2, i) if i % 2 else None for i in range(150)]
    assert await store.fetch_heads(["other"], "fedcba9876543210") != [None]
