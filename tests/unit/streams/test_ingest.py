"""What an agent does with a chunk of events."""

from __future__ import annotations

from typing import Any

import pytest
from faust.types import TP

from interest.metrics import NoMetrics
from interest.partition import partition_of
from interest.pseudonyms import Pseudonyms
from interest.sealing import IN_THE_CLEAR
from interest.settings import Settings
from streams.dirty import DirtyUsers
from streams.ingest import Ingest
from streams.progress import Progress
from streams.routing import SOURCE_TIMESTAMP
from streams.topics import TopicNames
from tests.unit.streams.fakes import T0, KafkaRecord, Outbox, Windows, chunk, event_json, sought

NAMES = TopicNames.of(Settings())
N = 4
HOME = partition_of("u", N)
AHEAD = event_json("ahead", ts=T0 + 300_001)


class Harness:
    def __init__(self) -> None:
        self.windows, self.dirty, self.progress = Windows(), DirtyUsers(), Progress()
        self.progress.start(1)
        self.outbox = Outbox()
        self.ingest = Ingest(
            names=NAMES, n_partitions=N, windows=self.windows,  # type: ignore[arg-type]
            dirty=self.dirty, progress=self.progress, outbox=self.outbox,  # type: ignore[arg-type]
            max_uncommitted=1_000, pseudonym=Pseudonyms(""),
            sealer=IN_THE_CLEAR, clock=lambda: T0, metrics=NoMetrics(),
        )  # fmt: skip

    async def handle(self, *values: Any, topic: str = NAMES.behaviours, at: int = HOME) -> None:
        records = [
            value if isinstance(value, KafkaRecord) else KafkaRecord(topic, at, i, None, value)
            for i, value in enumerate(values)
        ]
        await self.ingest.handle(sought(self.progress, chunk(records)))


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_events_are_folded_and_their_users_marked_once(harness: Harness) -> None:
    await harness.handle(event_json("a"), event_json("b"))
    assert len(harness.windows.partition(HOME).window("u")) == 2
    assert len(harness.dirty) == 1
    assert harness.progress.positions == {TP(NAMES.behaviours, HOME): 2}
    assert not harness.outbox.sent


async def test_an_event_read_again_changes_nothing_and_marks_its_user(harness: Harness) -> None:
    await harness.handle(event_json("a"))
    before = harness.windows.partition(HOME).window("u")
    harness.dirty.confirm(harness.dirty.take(lambda mark: 1, 9))
    await harness.handle(event_json("a"))
    assert harness.windows.partition(HOME).window("u") is before
    assert len(harness.dirty) == 1


async def test_an_impression_is_counted_and_marks_nobody(harness: Harness) -> None:
    shown = event_json("a", type="impression", request_id="r", position=1, model_id="m")
    await harness.handle(shown)
    assert len(harness.dirty) == 0
    assert not harness.windows.partition(HOME).held


async def test_an_unknown_item_leaves_the_window_unresolved(harness: Harness) -> None:
    await harness.handle(event_json("a"))
    assert not harness.windows.partition(HOME).window("u").unresolved
    await harness.handle(event_json("b", item_id="new"))
    assert harness.windows.partition(HOME).window("u").unresolved


async def test_an_event_of_another_partition_goes_through_routed(harness: Harness) -> None:
    elsewhere = (HOME + 1) % N
    await harness.handle(event_json("a"), at=elsewhere)
    [record] = harness.outbox.sent
    assert (record.topic, record.key, record.partition) == (NAMES.routed, b"u", HOME)
    assert record.value == event_json("a")
    assert dict(record.headers)[SOURCE_TIMESTAMP] == str(T0).encode()
    assert not harness.windows.partition(elsewhere).held


async def test_a_routed_event_keeps_the_time_of_its_source_record(harness: Harness) -> None:
    record = KafkaRecord(
        NAMES.routed, HOME, 0, b"u", event_json("a"), timestamp=T0 + 500,
        headers=((SOURCE_TIMESTAMP, str(T0 - 7).encode()),),
    )  # fmt: skip
    await harness.handle(record)
    assert harness.dirty.take(lambda mark: 1, 9)[0].since_ms == T0 - 7


@pytest.mark.parametrize("value", [b"abc", b"", None, b"9" * 30, str(T0 - 10**9).encode()])
async def test_a_header_that_a_producer_invented_changes_nothing(
    harness: Harness, value: bytes | None
) -> None:
    forged = ((SOURCE_TIMESTAMP, value),)
    record = KafkaRecord(
        NAMES.behaviours, HOME, 0, b"u", event_json("a"), headers=forged,  # type: ignore[arg-type]
    )  # fmt: skip
    await harness.handle(record)
    assert harness.dirty.take(lambda mark: 1, 9)[0].since_ms == T0
    elsewhere = record._replace(partition=(HOME + 1) % N)
    await harness.handle(elsewhere, at=(HOME + 1) % N)
    [routed] = harness.outbox.sent
    assert routed.headers[-1] == (SOURCE_TIMESTAMP, str(T0).encode())


async def test_a_routed_event_is_never_routed_again(harness: Harness) -> None:
    await harness.handle(event_json("a"), topic=NAMES.routed, at=(HOME + 1) % N)
    [letter] = harness.outbox.sent
    assert dict(letter.headers)["reason"] == b"wrong_partition"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (KafkaRecord(NAMES.behaviours, HOME, 7, b"u", b"{broken"), b"malformed_json"),
        (KafkaRecord(NAMES.behaviours, HOME, 7, b"u", b"\xff"), b"not_utf8"),
        (KafkaRecord(NAMES.behaviours, HOME, 7, b"u", None), b"null_value"),
        (KafkaRecord(NAMES.behaviours, HOME, 7, b"other", event_json("a")), b"key_mismatch"),
        (KafkaRecord(NAMES.behaviours, HOME, 7, b"\xff", event_json("a")), b"key_mismatch"),
        (KafkaRecord(NAMES.behaviours, HOME, 7, None, AHEAD), b"future_time"),
    ],
)
async def test_a_broken_event_becomes_a_letter_and_its_neighbours_are_folded(
    harness: Harness, record: KafkaRecord, reason: bytes
) -> None:
    await harness.handle(
        KafkaRecord(NAMES.behaviours, HOME, 6, b"u", event_json("before")),
        record,
        KafkaRecord(NAMES.behaviours, HOME, 8, b"u", event_json("after")),
    )
    [letter] = harness.outbox.sent
    headers = dict(letter.headers)
    assert headers["reason"] == reason
    assert letter.topic == NAMES.dead_letters
    assert letter.key == f"{NAMES.behaviours}/{HOME}/7".encode()
    assert letter.value == (record.value or b"")
    assert ("null-value" in headers) == (record.value is None)
    assert headers.get("key") == record.key
    assert len(harness.windows.partition(HOME).window("u")) == 2
    assert harness.progress.positions == {TP(NAMES.behaviours, HOME): 9}


async def test_the_brokers_time_decides_what_lies_in_the_future(harness: Harness) -> None:
    late_log = KafkaRecord(
        NAMES.behaviours, HOME, 0, None, event_json("a", ts=T0 + 400_000), timestamp=T0 + 200_000
    )
    create_time = late_log._replace(offset=1, timestamp_type=0, timestamp=T0 + 200_000)
    await harness.handle(late_log, create_time)
    # The producer's own time stamp proves nothing, so the worker's clock is taken.
    assert len(harness.windows.partition(HOME).window("u")) == 1
    assert [dict(r.headers)["offset"] for r in harness.outbox.sent] == [b"1"]


async def test_a_chunk_of_an_earlier_generation_moves_no_position(harness: Harness) -> None:
    """Its partition was away: the windows that it was folded into are dropped."""
    records = [KafkaRecord(NAMES.behaviours, HOME, 0, None, event_json("a"))]
    harness.progress.start(2)
    await harness.ingest.handle(sought(harness.progress, chunk(records, generation=1)))
    assert harness.progress.positions == {}
    assert not harness.windows.partitions


async def test_a_rebalance_in_the_middle_of_a_chunk_ends_it(harness: Harness) -> None:
    values = [event_json(f"e{i}") if i % 1200 else b"{" for i in range(2400)]
    records = [KafkaRecord(NAMES.behaviours, HOME, i, None, v) for i, v in enumerate(values)]
    harness.outbox.fail = lambda: harness.progress.start(2)  # while the first letter is sent
    await harness.ingest.handle(sought(harness.progress, chunk(records, generation=1)))
    assert harness.progress.positions == {}
    assert len(harness.outbox.sent) == 1


async def test_the_position_stays_where_it_is_while_a_letter_is_not_acknowledged() -> None:
    harness = Harness()

    def fail() -> None:
        raise ConnectionError("the broker is away")

    harness.outbox.fail = fail
    with pytest.raises(ConnectionError):
        await harness.handle(b"{broken")
    assert harness.progress.positions == {}
