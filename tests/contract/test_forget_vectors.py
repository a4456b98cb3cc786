"""Forgetting a user in a real Redis: everything goes, and no older write comes back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from interest.errors import BadInput, ServiceUnavailable
from interest.forgetting import Marker, subject_hash
from interest.vector import Token
from store.redis_vectors import RedisUserVectors
from store.slots import N_SLOTS, slot_of, tags
from tests.contract.conftest import RedisServer, running_redis
from tests.contract.test_user_vector_store import FIRST, MODEL, tokens, update

KEY = "forget-key"


def marker(user_id: str = "u", token: Token = FIRST, time_ms: int = 1_000) -> Marker:
    return Marker(subject_hash(KEY, user_id), time_ms, token)


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisUserVectors]:
    made = RedisUserVectors(redis_server.url, prefix=f"{uuid.uuid4().hex}:", forget_key=KEY)
    yield made
    await made.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Any:
    with redis_server.client as made:
        yield made


def prefix_of(store: RedisUserVectors) -> str:
    return store.user_key("").removesuffix("user:")


async def test_forgetting_removes_all_of_a_user_and_leaves_a_marker_without_the_id(
    store: RedisUserVectors, client: redis.Redis
) -> None:
    user = "someone@example.com"
    await store.upsert([update(user), update("other"), update(user, model="staged")])
    stands = await store.forget(user, marker(user, Token(0, 1, 2)))
    assert await store.fetch([user], MODEL) == [None]
    assert await store.fetch([user], "staged") == [None]
    keys: Any = client.keys(f"{prefix_of(store)}*")
    [left] = [key for key in keys if b"forgotten" in key]
    assert not any(user.encode() in key for key in keys)
    raw: Any = client.get(left)
    assert len(raw) == 24
    assert user.encode() not in raw
    assert (stands.token, stands.time_ms) == (Token(0, 1, 2), 1_000)
    assert (await store.fetch(["other"], MODEL))[0] is not None


async def test_no_write_up_to_the_marker_brings_the_user_back(store: RedisUserVectors) -> None:
    await store.upsert([update(token=Token(0, 1, 5))])
    stands = await store.forget("u", marker(token=Token(0, 1, 6)))
    for token in (Token(0, 0, 9), Token(0, 1, 5), Token(0, 1, 6)):
        assert await store.upsert([update(token=token)]) == [stands]
    assert await store.fetch_heads(["u"], MODEL) == [None]
    assert await store.upsert([update(token=Token(0, 1, 7))]) == [None], "who comes back may"
    assert await store.upsert([update(token=Token(0, 1, 6))]) == [stands]
    assert await store.fetch_heads(["u"], MODEL) == [(Token(0, 1, 7), 2_000)]


async def test_the_marker_rises_above_whatever_it_removes(store: RedisUserVectors) -> None:
    """Someone in a newer generation wrote: the owner goes on above that, not below."""
    await store.upsert([update(token=Token(0, 7, 3)), update(token=Token(2, 0, 1), model="staged")])
    stands = await store.forget("u", marker(token=Token(0, 1, 6)))
    assert stands.token == Token(2, 0, 1)
    assert await store.fetch_heads(["u"], MODEL) == [None]


async def test_the_higher_token_and_the_later_time_of_two_markers_stand(
    store: RedisUserVectors,
) -> None:
    await store.forget("u", marker(token=Token(0, 2, 0), time_ms=5_000_000_000_000))
    stands = await store.forget("u", marker(token=Token(0, 1, 9), time_ms=4_000_000_000_000))
    assert (stands.token, stands.time_ms) == (Token(0, 2, 0), 5_000_000_000_000)
    stands = await store.forget("u", marker(token=Token(0, 3, 0), time_ms=1))
    assert (stands.token, stands.time_ms) == (Token(0, 3, 0), 5_000_000_000_000)
    stands = await store.forget("u", marker(token=Token(0, 0, 0), time_ms=2**42))
    assert (stands.token, stands.time_ms) == (Token(0, 3, 0), 5_000_000_000_000)


async def test_a_request_carried_out_again_leaves_who_came_back(store: RedisUserVectors) -> None:
    """By a worker that was stopped in the middle of it, or after a crash before its commit."""
    stands = await store.forget("u", marker(token=Token(0, 1, 6)))
    await store.upsert([update(token=Token(0, 2, 1))])
    assert await store.forget("u", marker(token=Token(0, 1, 6))) == stands
    assert await store.forget("u", marker(token=Token(0, 1, 5))) == stands
    assert await store.fetch_heads(["u"], MODEL) == [(Token(0, 2, 1), 2_000)]
    later = await store.forget("u", marker(token=Token(0, 2, 2), time_ms=2_000))
    assert (later.token, later.time_ms) == (Token(0, 2, 2), 2_000)
    assert await store.fetch_heads(["u"], MODEL) == [None]


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), tokens), min_size=1, max_size=8))
def test_a_write_stands_exactly_if_nothing_newer_was_written_or_forgotten(
    redis_server: RedisServer, steps: list[tuple[bool, Token]]
) -> None:
    async def run() -> None:
        store = RedisUserVectors(redis_server.url, prefix=f"{uuid.uuid4().hex}:", forget_key=KEY)
        stored: Token | None = None
        forgotten: Token | None = None
        for forget, token in steps:
            if forget and forgotten is not None and token <= forgotten:
                # Carried out already: what was written since knew of it.
                assert (await store.forget("u", marker(token=token))).token == forgotten
                continue
            if forget:
                forgotten = max(t for t in (token, stored, forgotten) if t is not None)
                stored = None
                assert (await store.forget("u", marker(token=token))).token == forgotten
                continue
            [answer] = await store.upsert([update(token=token)])
            if forgotten is not None and token <= forgotten:
                assert isinstance(answer, Marker)
                assert answer.token == forgotten
            elif stored is not None and token < stored:
                assert answer == stored
            else:
                assert answer is None
                stored = token
        [head] = await store.fetch_heads(["u"], MODEL)
        assert (head and head.token) == stored
        await store.close()

    asyncio.run(run())


async def test_a_marker_made_with_another_key_is_refused(store: RedisUserVectors) -> None:
    await store.upsert([update()])
    with pytest.raises(BadInput, match="INTEREST_FORGET_KEY"):
        await store.forget("u", Marker(subject_hash("another", "u"), 1, Token(0, 1, 1)))
    assert (await store.fetch(["u"], MODEL))[0] is not None


async def test_a_marker_expires_when_it_is_told_to(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    store = RedisUserVectors(
        redis_server.url, prefix=f"{uuid.uuid4().hex}:", forget_key=KEY, marker_ttl_s=1_234
    )
    await store.forget("u", marker())
    keys: Any = client.keys(f"{prefix_of(store)}*")
    [key] = keys
    assert client.ttl(key) in range(1_200, 1_235)
    await store.close()


async def test_markers_return_to_an_emptied_redis_and_outrank_an_older_copy_of_it(
    store: RedisUserVectors, client: Any
) -> None:
    """The older copy holds the user as before; who came back since has a higher token."""
    for user in ("gone", "back", "other"):
        await store.upsert([update(user, Token(0, 1, 1)), update(user, Token(0, 1, 1), model="m")])
    older: dict[Any, Any] = {key: client.dump(key) for key in client.keys(f"{prefix_of(store)}*")}
    markers = [await store.forget(u, marker(u, Token(0, 1, 2))) for u in ("gone", "back")]
    client.delete(*client.keys(f"{prefix_of(store)}*"))
    for key, raw in older.items():
        client.restore(key, 0, raw)
    await store.upsert([update("back", Token(0, 1, 3))])
    assert await store.restore_markers(markers) == 2
    assert await store.fetch_heads(["gone", "back", "other"], MODEL) == [
        None, (Token(0, 1, 3), 2_000), (Token(0, 1, 1), 2_000)
    ]  # fmt: skip
    assert await store.fetch_heads(["gone", "back", "other"], "m") == [
        None, None, (Token(0, 1, 1), 2_000)
    ]  # fmt: skip
    assert not client.exists(store.user_key("gone"))
    assert await store.upsert([update("gone", Token(0, 1, 2))]) == [markers[0]]
    assert await store.restore_markers(markers) == 0
    assert await store.restore_markers([]) == 0


async def test_what_was_interrupted_before_every_user_was_seen_is_done_again(
    store: RedisUserVectors, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.upsert([update("gone")])
    older = client.dump(store.user_key("gone"))
    stands = await store.forget("gone", marker("gone", Token(0, 9, 9)))
    client.delete(*client.keys(f"{prefix_of(store)}*"))
    client.restore(store.user_key("gone"), 0, older)

    async def scan(*args: Any) -> Any:
        raise redis.ConnectionError("gone away")

    with monkeypatch.context() as patched:
        patched.setattr(store._redis, "scan", scan)
        with pytest.raises(ServiceUnavailable):
            await store.restore_markers([stands])
    assert await store.restore_markers([stands]) == 1
    assert not client.exists(store.user_key("gone"))


async def test_many_users_are_swept_whatever_their_ids(store: RedisUserVectors) -> None:
    users = [f"u{i}*[x]\\" for i in range(1_203)]
    await store.upsert([update(user) for user in users])
    place = (await store.forget(users[0], marker(users[0]))).place
    assert place > 0
    markers = [await store.forget(user, marker(user)) for user in users[:600]]
    assert await store.restore_markers(markers) == 0, "nothing was left to remove"
    heads = await store.fetch_heads(users, MODEL)
    assert [head is None for head in heads] == [True] * 600 + [False] * 603


async def test_a_marker_without_its_place_is_refused(store: RedisUserVectors) -> None:
    with pytest.raises(BadInput, match="place"):
        await store.restore_markers([marker()])


@pytest.mark.parametrize("user_id", ["u", "{a}", "a{b}{c}", "{}", "}{", "用{户}", "x{y"])
@pytest.mark.parametrize("prefix", ["interest:", "{shop}:", ""])
async def test_a_marker_lies_in_the_slot_of_its_user(
    redis_server: RedisServer, client: redis.Redis, prefix: str, user_id: str
) -> None:
    """A script may touch the keys of one slot only."""
    store = RedisUserVectors(redis_server.url, prefix=prefix, forget_key=KEY)
    await store.upsert([update(user_id)])
    await store.forget(user_id, marker(user_id))
    keys: Any = client.keys(f"{prefix}forgotten:*{subject_hash(KEY, user_id).hex()}")
    [key] = keys
    assert slot_of(key) == slot_of(store.user_key(user_id).encode())
    client.delete(key)
    await store.close()


@pytest.mark.parametrize("prefix", ["a{b:", "{}:", "}{"])
def test_a_prefix_with_half_a_brace_is_refused(prefix: str) -> None:
    with pytest.raises(BadInput, match="INTEREST_REDIS_PREFIX"):
        RedisUserVectors("redis://localhost", prefix=prefix)


def test_slots_are_those_of_a_cluster(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--cluster-enabled", "yes", "--port", "0") as server:
        client = server.client
        ask: Any = client.execute_command
        for key in (
            b"",
            b"123456789",
            b"a{b}c",
            b"a{}{b}",
            b"{user1000}.x",
            "{用}".encode(),
            b"}{",
        ):
            assert ask("CLUSTER KEYSLOT", key) == slot_of(key)
        client.close()


def test_every_slot_has_a_tag() -> None:
    assert [slot_of(f"x{{{tag}}}y".encode()) for tag in tags()] == list(range(N_SLOTS))


async def test_a_foreign_key_is_replaced_and_named_without_the_id(
    store: RedisUserVectors, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.rpush(store.user_key("wrong-type"), "a list")
    assert await store.fetch_heads(["wrong-type"], MODEL) == [None]
    assert await store.fetch(["wrong-type"], MODEL) == [None]
    batch = [update("before"), update("wrong-type"), update("behind")]
    assert await store.upsert(batch) == [None, None, None]
    assert all(await store.fetch(["before", "wrong-type", "behind"], MODEL))
    assert "foreign" in caplog.text
    assert "wrong-type" not in caplog.text


async def test_a_foreign_marker_or_hash_does_not_stop_forgetting(
    store: RedisUserVectors, client: redis.Redis
) -> None:
    await store.forget("u", marker())
    keys: Any = client.keys(f"{prefix_of(store)}forgotten*")
    client.delete(*keys)
    client.rpush(keys[0], "a list")
    client.set(store.user_key("u"), "text")
    stands = await store.forget("u", marker())
    assert await store.upsert([update()]) == [stands]
    client.delete(*keys)
    client.rpush(keys[0], "a list")
    assert await store.upsert([update()]) == [None], "what is no marker forbids nothing"


async def test_foreign_popular_items_are_replaced(
    store: RedisUserVectors, client: redis.Redis
) -> None:
    client.set(f"{prefix_of(store)}popular", "text")
    await store.publish_popular(0, {"a": 1.0})
    assert await store.fetch_popular(1) == [("a", 1.0)]


async def test_the_epoch_changes_with_a_restart_and_with_a_flush_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    with running_redis(tmp_path) as server:
        store = RedisUserVectors(server.url)
        first = await store.epoch()
        await store.upsert([update()])
        assert await store.epoch() == first
        with server.client as client:
            client.flushall()
        flushed = await store.epoch()
        assert flushed != first
        with server.client as client:
            client.save()
        server.stop()
        server.start()
        with suppress(ServiceUnavailable):
            await store.epoch()  # it meets the connection that the restart closed
        restarted = await store.epoch()
        assert restarted not in (first, flushed)
        assert await store.epoch() == restarted
        await store.close()
