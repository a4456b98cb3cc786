"""The desk of the dead letters over real brokers: what lies there, sending again, removing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from interest.clock import system_clock
from interest.errors import BadInput, InvalidEvent, InvalidItem
from interest.event import decode_event, id_hash
from interest.metrics import NoMetrics
from interest.partition import partition_of
from streams.dead_letter_desk import Lying, Selection, find, letters, letters_of, purge, remove
from streams.dead_letters import dead_letter, poison_letter
from streams.outbox import Outbox, Record
from streams.redrive import redrive
from streams.topics import TopicNames, ensure_topics
from tests.stream.conftest import T0, Harness, event, eventually, item
from tests.stream.test_worker import publish
from tests.unit.streams.fakes import KafkaRecord

OLD = InvalidEvent("schema", "refused by an earlier version")


class Desk:
    """Writes letters as a worker does, and reads them."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.names = TopicNames.of(harness.settings)

    async def send(self, *records: Record) -> None:
        outbox = Outbox(self.harness.settings, NoMetrics())
        await outbox.start()
        try:
            await outbox.send_all(records)
        finally:
            await outbox.stop()

    def letter(
        self, value: bytes | None, offset: int = 0, topic: str = "", error: InvalidEvent = OLD,
        key: bytes | None = None, **fields: Any,
    ) -> Record:  # fmt: skip
        topic = topic or self.names.behaviours
        source = KafkaRecord(topic, 1, offset, key, value, timestamp=T0, **fields)
        return dead_letter(self.names.dead_letters, source, error, T0 + offset)

    async def lying(self, chosen: Selection = Selection()) -> list[Lying]:  # noqa: B008
        return [found async for found in letters(self.harness.settings, chosen)]

    async def keys(self, chosen: Selection = Selection()) -> list[str]:  # noqa: B008
        return sorted(found.ref.key for found in await self.lying(chosen))


@pytest.fixture
async def desk(harness: Harness) -> Desk:
    await ensure_topics(harness.settings)
    return Desk(harness)


def window_of(worker: Any, user_id: str) -> list[bytes]:
    number = partition_of(user_id, len(worker.windows.partitions))
    return [e.id_hash for e in worker.windows.partition(number).window(user_id).events]


async def test_of_the_records_under_one_key_the_newest_counts(desk: Desk) -> None:
    await desk.send(*(desk.letter(b"{", offset=i) for i in range(4)))
    await desk.send(desk.letter(b"{", offset=1, error=InvalidEvent("other", "later")))
    await desk.send(Record(desk.names.dead_letters, desk.letter(b"{", offset=2).key, None))
    found = {lying.letter.origin.offset: lying.letter.last.reason for lying in await desk.lying()}
    assert found == {0: "schema", 1: "other", 3: "schema"}


async def test_letters_are_chosen_by_reason_user_and_time(desk: Desk) -> None:
    name = desk.names.behaviours
    await desk.send(
        desk.letter(event("a", "ann"), offset=0),
        desk.letter(b'{"user_id": "ann"', offset=1, error=InvalidEvent("malformed_json", "")),
        desk.letter(None, offset=2, key=b"bob", error=InvalidEvent("null_value", "")),
    )
    assert await desk.keys() == [f"{name}/1/{i}" for i in range(3)]
    assert await desk.keys(Selection(reason="null_value")) == [f"{name}/1/2"]
    assert await desk.keys(Selection(user_id="ann")) == [f"{name}/1/0", f"{name}/1/1"]
    assert await desk.keys(Selection(since_ms=T0 + 1, before_ms=T0 + 2)) == [f"{name}/1/1"]
    assert (await find(desk.harness.settings, f"{name}/1/2")).letter.value is None
    with pytest.raises(BadInput, match="no dead letter nobody"):
        await find(desk.harness.settings, "nobody")


async def test_the_letters_of_a_person_are_removed_and_no_others(desk: Desk) -> None:
    settings = desk.harness.settings
    await desk.send(
        desk.letter(event("a", "ann"), offset=0),
        desk.letter(b"\xff", offset=1, key=b"ann"),
        desk.letter(event("b", "bob"), offset=2),
        desk.letter(event("c", "cid"), offset=3),
    )
    outbox = Outbox(settings, NoMetrics())
    await outbox.start()
    assert await remove(settings, outbox, await letters_of(settings, ["ann", "cid"])) == 3
    await outbox.stop()
    assert await desk.keys() == [f"{desk.names.behaviours}/1/2"]


async def test_a_purge_removes_what_was_chosen(desk: Desk) -> None:
    await desk.send(*(desk.letter(b"{", offset=i) for i in range(1_200)))
    assert await purge(desk.harness.settings, Selection(before_ms=T0 + 1_100)) == 1_100
    assert len(await desk.keys()) == 100
    assert await purge(desk.harness.settings, Selection()) == 100
    assert await desk.keys() == []


async def test_an_event_that_is_valid_now_is_folded_as_if_it_had_come_in_time(desk: Desk) -> None:
    harness = desk.harness
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    await publish(harness, "behaviours", ("u", event("b", "u", ts=T0 + 2)))
    refused = event("a", "u", ts=T0 + 1)
    await desk.send(
        desk.letter(refused, offset=0, headers=(("trace", b"7"),)),
        desk.letter(b"{broken", offset=1, error=InvalidEvent("malformed_json", "")),
    )
    report = await redrive(harness.settings, Selection())
    assert report.sent == Counter({desk.names.routed: 1})
    assert report.refused == Counter({"malformed_json": 1})
    async with harness.worker() as worker:
        await harness.idle(worker)
        assert window_of(worker, "u") == [id_hash("a"), id_hash("b")]
        # A second run finds nothing of it, and an event that comes twice counts once.
        again = await redrive(harness.settings, Selection())
        assert again.sent == Counter()
        await desk.send(desk.letter(refused, offset=0))
        assert (await redrive(harness.settings, Selection())).sent.total() == 1
        await harness.idle(worker)
        assert window_of(worker, "u") == [id_hash("a"), id_hash("b")]
    [kept] = await desk.lying()
    assert kept.letter.last.reason == kept.letter.origin.first.reason == "malformed_json"
    assert kept.letter.last.time_ms > kept.letter.origin.first.time_ms == T0 + 1
    [routed, _] = await harness.read("routed")
    headers = dict(routed.headers)
    assert headers["trace"] == b"7"
    assert headers["source-timestamp-ms"] == b"%d" % T0
    assert headers["dead-letter"] == f"{desk.names.behaviours}/1/0".encode()


async def test_an_event_that_fails_again_is_the_same_letter_with_its_first_error(
    desk: Desk,
) -> None:
    """The desk's clock runs ahead of the broker's, so the worker refuses what the desk sent."""
    harness = desk.harness
    ahead = system_clock() + 3_600_000
    await desk.send(desk.letter(event("a", "u", ts=ahead), offset=5, headers=(("trace", b"7"),)))
    async with harness.worker() as worker:
        report = await redrive(harness.settings, Selection(), clock=lambda: ahead)
        assert report.sent.total() == 1

        async def buried_again() -> list[Lying]:
            return [each for each in await desk.lying() if each.letter.last.reason != "schema"]

        await eventually(buried_again)
        await harness.idle(worker)
    [lying] = await desk.lying()
    letter = lying.letter
    assert lying.ref.key == f"{desk.names.behaviours}/1/5"
    assert (letter.origin.first.reason, letter.last.reason) == ("schema", "future_time")
    assert letter.origin.timestamp_ms == T0
    assert letter.original_key is None
    assert letter.original_headers == (("trace", b"7"),)


class Killed(Exception):
    """Stands for the death of the process."""


@pytest.mark.parametrize("n_steps", range(7))
async def test_a_re_drive_that_is_killed_between_two_steps_loses_nothing(
    desk: Desk, n_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = desk.harness.settings
    await desk.send(
        *(desk.letter(event(f"e{i}", "u", ts=T0 + i), offset=i) for i in range(3)),
        desk.letter(b"{", offset=3),
    )
    send_all, steps = Outbox.send_all, 0

    async def dying(self: Outbox, records: Sequence[Record]) -> None:
        nonlocal steps
        if steps == n_steps:
            raise Killed
        steps += 1
        await send_all(self, records)

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "send_all", dying)
        with pytest.raises(Killed):
            await redrive(settings, Selection())
    there = {lying.letter.value for lying in await desk.lying()}
    sent = {record.value for record in await desk.harness.read("routed")}
    assert there | sent == {*(event(f"e{i}", "u", ts=T0 + i) for i in range(3)), b"{"}
    await redrive(settings, Selection())
    assert await desk.keys() == [f"{desk.names.behaviours}/1/3"]
    routed = {decode_event(record.value).event_id for record in await desk.harness.read("routed")}
    assert routed == {"e0", "e1", "e2"}


async def test_a_letter_of_an_older_version_of_an_item_does_not_come_back(desk: Desk) -> None:
    harness = desk.harness
    await publish(
        harness, "catalogue",
        ("old", item("old", "An old title")),
        ("kept", item("kept", "The only title")),
        ("old", item("old", "A new title")),
        ("kept", b"{broken, and no newer version of it"),
    )  # fmt: skip
    records = {r.value: r for r in await harness.read("catalogue")}
    failed = InvalidItem("encoder_failed", "out of memory")
    await desk.send(
        *(
            dead_letter(desk.names.dead_letters, records[value], failed, T0)
            for value in (item("old", "An old title"), item("kept", "The only title"))
        )
    )
    report = await redrive(harness.settings, Selection())
    assert (report.superseded, report.sent) == (1, Counter({desk.names.catalogue: 1}))
    assert await desk.keys() == []
    last = await harness.read("catalogue")
    assert sorted(r.value for r in last).count(item("kept", "The only title")) == 2
    assert sorted(r.value for r in last).count(item("old", "An old title")) == 1


async def test_a_poison_event_can_be_sent_again(desk: Desk) -> None:
    harness = desk.harness
    poison = decode_event(event("a", "u"))
    await desk.send(poison_letter(desk.names.dead_letters, poison, 0, RuntimeError("device"), T0))
    assert (await redrive(harness.settings, Selection(reason="poison"))).sent.total() == 1
    async with harness.worker() as worker:
        await harness.idle(worker)
        assert window_of(worker, "u") == [id_hash("a")]
    assert await desk.keys() == []


async def test_keys_that_are_not_there_are_told(desk: Desk) -> None:
    await desk.send(desk.letter(b"{", offset=0))
    chosen = Selection(keys=frozenset({f"{desk.names.behaviours}/1/0", "nobody"}))
    report = await redrive(desk.harness.settings, chosen)
    assert chosen.keys - report.keys == {"nobody"}
