"""With pseudonyms and encryption, nothing we write holds an id; readers still find their users."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from interest.errors import BadInput, WrongKey
from interest.event import id_hash
from interest.metrics import NoMetrics
from interest.partition import partition_of
from interest.pseudonyms import Pseudonyms
from interest.settings import Settings
from interest_cli.wiring import open_recommender, user_vectors
from store.aes_sealer import sealer_of
from streams.dead_letter_desk import Lying, Selection, letters
from streams.outbox import Outbox, Record
from streams.redrive import redrive
from streams.topics import TopicNames
from tests.e2e.conftest import interest
from tests.stream.conftest import T0, Harness, event, eventually, item

PSEUDONYM_KEY = "nobody guesses this one"
USERS = [f"person-{name}@example.com" for name in ("ada", "bob", "eve", "kim", "lin", "zoé")]


def key(number: int) -> str:
    return f"{number}:{base64.b64encode(os.urandom(32)).decode()}"


@pytest.fixture
def private(harness: Harness) -> Harness:
    harness.change(pseudonym_key=PSEUDONYM_KEY, encryption_keys=key(1))
    harness.vectors = user_vectors(harness.settings)
    return harness


@asynccontextmanager
async def outbox(harness: Harness) -> AsyncIterator[Outbox]:
    made = Outbox(harness.settings, NoMetrics())
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def publish(harness: Harness, *records: Record) -> None:
    async with outbox(harness) as out:
        await out.send_all(list(records))


def behaviour(harness: Harness, event_id: str, user_id: str, **fields: Any) -> Record:
    names = TopicNames.of(harness.settings)
    raw = event(event_id, user_id, **fields)
    return Record(names.behaviours, user_id.encode(), raw, headers=(("trace", user_id.encode()),))


def everything_in_redis(harness: Harness) -> bytes:
    client: Any = redis.Redis.from_url(harness.settings.redis_url)
    found: list[bytes] = []
    for name in client.scan_iter(f"{harness.settings.redis_prefix}*"):
        found.append(name)
        kind = client.type(name)
        found.extend(
            [*client.hgetall(name).keys(), *client.hgetall(name).values()]
            if kind == b"hash"
            else [client.get(name)]
        )
    client.close()
    return b"\n".join(found)


async def everything_we_wrote(harness: Harness) -> dict[str, bytes]:
    """Read every topic but those which others write, keys and headers too."""
    names = TopicNames.of(harness.settings)
    ours = {getattr(names, field) for field in names.__struct_fields__}
    ours -= {names.behaviours, names.catalogue, names.forget}
    written: dict[str, bytes] = {}
    for topic in sorted(ours):
        name = topic.removeprefix(harness.settings.topic_prefix)
        parts: list[bytes] = []
        for record in await harness.read(name):
            parts += [record.key or b"", record.value or b""]
            parts += [part for header in record.headers for part in (header[0].encode(), header[1])]
        written[name] = b"\n".join(parts)
    return written


def raw_ids(text: bytes) -> list[str]:
    """Give the users of whom anything is left: their id, or as much as tells them apart."""
    found = []
    for user_id in USERS:
        escaped = msgspec.json.encode(user_id).strip(b'"')
        if user_id.encode() in text or escaped in text or ascii(user_id).encode()[1:-1] in text:
            found.append(user_id)
    return found


async def publish_all_sorts(harness: Harness) -> None:
    """Publish events of all users, and dead letters: the id is in value, key, header or error."""
    names = TopicNames.of(harness.settings)
    await publish(
        harness,
        Record(names.catalogue, b"mug", item("mug", "a blue mug")),
        *(behaviour(harness, f"e{i}", user_id) for i, user_id in enumerate(USERS)),
        behaviour(harness, "future", USERS[0], ts=T0 * 2),
        behaviour(harness, "no item", USERS[1], item_id=None),
        Record(names.behaviours, USERS[2].encode(), event("other key", USERS[3])),
        Record(names.behaviours, USERS[4].encode(), b'{"user_id": "' + USERS[4].encode()),
        Record(names.forget, USERS[5].encode(), b"{" + USERS[5].encode()),
    )


async def test_the_search_finds_ids_where_nothing_hides_them(harness: Harness) -> None:
    """Else the next test could not fail."""
    async with harness.worker() as worker:
        await publish_all_sorts(harness)
        await harness.idle(worker)
    written = await everything_we_wrote(harness)
    named = {name for name, text in written.items() if raw_ids(text)}
    assert named >= {"dead-letters", "user-vectors", "windows-changelog"}
    assert raw_ids(written["windows-changelog"]) == USERS
    assert raw_ids(everything_in_redis(harness)) == USERS


async def test_no_raw_id_is_left_in_anything_we_write(private: Harness) -> None:
    pseudonym = Pseudonyms(PSEUDONYM_KEY)
    async with private.worker() as worker:
        await publish_all_sorts(private)
        await private.idle(worker)
        for user_id in USERS:
            assert await private.user(pseudonym(user_id)) is not None
            assert await private.user(user_id) is None
    written = await everything_we_wrote(private)
    assert {name for name, text in written.items() if not text} <= {"control"}, (
        "else nothing is seen"
    )
    assert {name: raw_ids(text) for name, text in written.items() if raw_ids(text)} == {}
    assert raw_ids(everything_in_redis(private)) == []
    assert pseudonym(USERS[0]).encode() in written["user-vectors"]
    assert b"mug" not in written["windows-changelog"], "encrypted"


async def test_readers_and_the_desk_take_the_ids_that_people_know(private: Harness) -> None:
    sealer = sealer_of(private.settings.encryption_keys)
    async with private.worker() as worker:
        names = TopicNames.of(private.settings)
        await publish(
            private,
            Record(names.catalogue, b"mug", item("mug", "a blue mug")),
            behaviour(private, "a", USERS[0]),
            behaviour(private, "future", USERS[1], ts=T0 * 2),
        )
        await private.idle(worker)
        async with open_recommender(private.settings) as recommender:
            assert await recommender.user(USERS[0]) is not None
            assert await recommender.user(Pseudonyms(PSEUDONYM_KEY)(USERS[0])) is not None
            assert await recommender.user(USERS[2]) is None
        mine = Selection(user_id=USERS[1])

        async def found() -> list[Lying]:
            return [lying async for lying in letters(private.settings, mine, sealer)]

        [lying] = await eventually(found)
        assert lying.letter.last.reason == "future_time"
        assert lying.letter.original_key == USERS[1].encode()
        assert dict(lying.letter.original_headers)["trace"] == USERS[1].encode()


async def test_a_forgotten_person_is_forgotten_under_every_name(private: Harness) -> None:
    names, sealer = TopicNames.of(private.settings), sealer_of(private.settings.encryption_keys)
    pseudonym = Pseudonyms(PSEUDONYM_KEY)
    async with private.worker() as worker:
        await publish(
            private,
            Record(names.catalogue, b"mug", item("mug", "a blue mug")),
            *(behaviour(private, f"e{i}", user_id) for i, user_id in enumerate(USERS)),
            behaviour(private, "future", USERS[0], ts=T0 * 2),
        )
        await private.idle(worker)
        request = msgspec.json.encode({"user_id": USERS[0]})
        await publish(private, Record(names.forget, USERS[0].encode(), request))

        async def gone() -> bool:
            left = [found async for found in letters(private.settings, Selection(), sealer)]
            return not left and await private.user(pseudonym(USERS[0])) is None

        await eventually(gone)
        await private.idle(worker)
        assert await private.user(pseudonym(USERS[1])) is not None


async def test_a_letter_that_is_redriven_takes_no_id_along(private: Harness) -> None:
    """It was refused for a time that is past by now."""
    names, sealer = TopicNames.of(private.settings), sealer_of(private.settings.encryption_keys)
    async with private.worker() as worker:
        await publish(
            private,
            Record(names.catalogue, b"mug", item("mug", "a blue mug")),
            behaviour(private, "future", USERS[0], ts=T0 * 2),
        )
        await private.idle(worker)
        report = await redrive(private.settings, Selection(), sealer, lambda: T0 * 3)
        assert report.sent.total() == 1
        pseudonym = Pseudonyms(PSEUDONYM_KEY)(USERS[0])

        async def refused_again() -> list[Lying]:
            return [lying async for lying in letters(private.settings, Selection(), sealer)]

        await eventually(refused_again)  # by the broker's time it is still of the future
        await private.idle(worker)
    [routed] = await private.read("routed")
    assert routed.key == pseudonym.encode()
    assert routed.partition == partition_of(pseudonym, private.settings.partitions)
    written = await everything_we_wrote(private)
    assert {name: raw_ids(text) for name, text in written.items() if raw_ids(text)} == {}


def run_worker(harness: Harness, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a worker as a user does, to its end."""
    given = msgspec.structs.asdict(harness.settings)
    default = msgspec.structs.asdict(Settings())
    env = {f"INTEREST_{k.upper()}": str(v) for k, v in given.items() if v != default[k]}
    return interest("worker", cwd=folder, env={**env, "INTEREST_WORKER_PORT": "0"})


async def test_windows_are_recovered_with_an_older_key_and_never_without(
    private: Harness, tmp_path: Path
) -> None:
    """To pass encrypted windows over would lose them: a worker with a wrong key must not start."""
    names = TopicNames.of(private.settings)
    old = private.settings.encryption_keys
    async with private.worker() as worker:
        await publish(
            private,
            Record(names.catalogue, b"mug", item("mug", "a blue mug")),
            behaviour(private, "a", USERS[0]),
        )
        await private.idle(worker)
    # Of the same id: damaged records are passed over, these must not be.
    private.change(encryption_keys=key(1))
    done = await asyncio.to_thread(run_worker, private, tmp_path)
    assert done.returncode == WrongKey.exit_code, done.stderr
    assert re.search(r"key 1.*INTEREST_ENCRYPTION_KEYS", done.stderr.splitlines()[-1]), done.stderr
    assert private.settings.encryption_keys[2:] not in done.stderr
    private.change(encryption_keys=f"{key(2)},{old}")
    async with private.worker() as worker:
        await publish(private, behaviour(private, "b", USERS[0]))
        await private.idle(worker)
        number = partition_of(Pseudonyms(PSEUDONYM_KEY)(USERS[0]), private.settings.partitions)
        [held] = worker.windows.partition(number).held.values()
        assert held.window.id_hashes() == {id_hash("a"), id_hash("b")}


async def test_pseudonyms_without_encryption_are_refused(harness: Harness) -> None:
    harness.change(pseudonym_key=PSEUDONYM_KEY)
    with pytest.raises(BadInput, match="INTEREST_ENCRYPTION_KEYS"):
        async with harness.worker():
            pytest.fail("it started")
