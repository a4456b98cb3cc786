"""The commands of the dead letters, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path

import pytest

from interest.errors import InvalidEvent
from interest.metrics import NoMetrics
from interest.settings import Settings
from interest_cli.services import EmbeddedServices
from streams.dead_letters import dead_letter
from streams.outbox import Outbox
from streams.topics import TopicNames, ensure_topics
from tests.e2e.conftest import interest
from tests.unit.streams.fakes import T0, KafkaRecord, event_json

#: Whoever prints this as it is lets a producer write on the operator's terminal.
ESCAPE = b'{"event_id": "\x1b[2J\xe2\x80\xae", '


@pytest.fixture
def env(embedded: EmbeddedServices) -> dict[str, str]:
    """Three letters: one that is valid by now, one broken, one without a value."""
    settings = Settings(
        kafka_bootstrap=embedded.kafka_bootstrap, topic_prefix=f"{uuid.uuid4().hex[:8]}-",
        partitions=2, fetch_max_wait_ms=20,
    )  # fmt: skip
    names = TopicNames.of(settings)

    def letter(offset: int, value: bytes | None, reason: str) -> object:
        record = KafkaRecord(names.behaviours, 0, offset, b"ann", value)
        error = InvalidEvent(reason, f"detail {offset}")
        return dead_letter(names.dead_letters, record, error, T0 + offset * 1000)

    async def write() -> None:
        await ensure_topics(settings)
        outbox = Outbox(settings, NoMetrics())
        await outbox.start()
        await outbox.send_all(
            [
                letter(0, event_json("e", "ann"), "schema"),  # type: ignore[list-item]
                letter(1, ESCAPE, "malformed_json"),  # type: ignore[list-item]
                letter(2, None, "null_value"),  # type: ignore[list-item]
            ]
        )
        await outbox.stop()

    asyncio.run(write())
    return {
        "INTEREST_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "INTEREST_TOPIC_PREFIX": settings.topic_prefix,
        "INTEREST_FETCH_MAX_WAIT_MS": "20",
    }


def test_letters_are_listed_shown_sent_again_and_removed(
    env: dict[str, str], tmp_path: Path
) -> None:
    def run(*args: object, code: int = 0) -> str:
        done = interest("dead-letters", *args, cwd=tmp_path, env=env)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    behaviours = env["INTEREST_TOPIC_PREFIX"] + "behaviours"
    listed = run("list")
    assert len(listed.splitlines()) == 3
    assert f"null_value  {behaviours}/0/2  detail 2" in listed
    lines = [json.loads(line) for line in run("list", "--json", "--user", "ann").splitlines()]
    assert {line["offset"]: line["reason"] for line in lines} == {
        0: "schema", 1: "malformed_json", 2: "null_value",
    }  # fmt: skip
    assert run("list", "--user", "bob") == "no such dead letters\n"
    assert run("list", "--reason", "schema").count("\n") == 1
    assert run("list", "--since", "2023-11-14T22:13:21.500Z").count("\n") == 1
    assert "soon" in run("list", "--since", "soon", code=2)
    assert "3  in all" in run("list", "--count")

    shown = run("show", f"{behaviours}/0/1")
    assert "\x1b" not in shown
    assert "\\x1b[2J\\u202e" in shown
    assert "no value" in run("show", f"{behaviours}/0/2")
    assert "no dead letter nobody" in run("show", "nobody", code=2)

    assert "say which letters" in run("redrive", code=2)
    report = run("redrive", "--all")
    assert f"1 sent again: 1 to {env['INTEREST_TOPIC_PREFIX']}routed" in report
    assert "2 still invalid: malformed_json 1, null_value 1" in report
    assert "no dead letter nobody" in run("redrive", "nobody", code=2)
    again = json.loads(run("show", f"{behaviours}/0/1", "--json"))
    assert again["first_detail"] == "detail 1"
    assert again["detail"] != "detail 1"
    assert again["value"].encode() == ESCAPE

    assert "this would remove 1 letters" in run("purge", "--reason", "null_value", code=2)
    assert run("purge", "--reason", "null_value", "--yes") == "1 letters removed\n"
    assert run("purge", "--all", "--yes") == "1 letters removed\n"
    assert run("list") == "no dead letters\n"


def test_growing_on_the_embedded_broker_is_refused_in_one_line(
    env: dict[str, str], tmp_path: Path
) -> None:
    done = interest("topics", "grow", 4, cwd=tmp_path, env=env)
    assert done.returncode == 3
    assert done.stderr.count("error: ") == 1
    assert "this broker cannot add partitions" in done.stderr
    done = interest("topics", "grow", 1, cwd=tmp_path, env=env)
    assert (done.returncode, "1 would be fewer" in done.stderr) == (2, True)
