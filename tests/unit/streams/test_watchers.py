"""The watchdog, the life of Redis, and what is said of sources."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from faust.types import TP

from interest.errors import ServiceUnavailable
from interest.metrics import NoMetrics
from streams.consumer_thread import SourceOffsets
from streams.sources import SourceCheck
from streams.watchers import RedisLife, Service, Watchdog
from tests.unit.streams.fakes import Vectors

MINE, THEIRS = TP("behaviours", 0), TP("behaviours", 1)


class Consumer:
    def __init__(self) -> None:
        self.fetched: int | None = None
        self.offsets = {tp: SourceOffsets(0, 10, 10, True) for tp in (MINE, THEIRS)}

    def fetched_end(self, tp: TP) -> int | None:
        return self.fetched

    async def source_offsets(self, tps: Iterable[TP]) -> dict[TP, SourceOffsets]:
        return {tp: self.offsets[tp] for tp in tps}


class Harness:
    def __init__(self) -> None:
        self.consumer, self.now, self.work, self.away = Consumer(), 0.0, 0, ""
        self.owned: set[tuple[str, int]] | None = {("behaviours", 0), ("behaviours", 1)}

        async def owned() -> set[tuple[str, int]] | None:
            return self.owned

        self.dog = Watchdog(
            limit_s=10, consumer=lambda: self.consumer, expected=[MINE, THEIRS],  # type: ignore[arg-type,return-value]
            own=lambda: {MINE}, owned=owned, work=lambda: self.work,
            services=lambda: [self.away], monotonic=lambda: self.now,
        )  # fmt: skip

    def lag(self, tp: TP, committed: int | None = 5) -> None:
        self.consumer.offsets[tp] = SourceOffsets(0, 10, committed, True)

    async def after(self, seconds: float) -> str:
        await self.dog.look()
        self.now += seconds
        return await self.dog.look()


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_lag_without_progress_is_stuck(harness: Harness) -> None:
    harness.lag(MINE)
    assert await harness.after(9) == ""
    assert "behaviours partition 0" in await harness.after(2)


async def test_a_group_that_never_committed_has_lag_from_the_start(harness: Harness) -> None:
    harness.lag(MINE, None)
    assert "partition 0" in await harness.after(11)


async def test_work_or_a_commit_or_no_lag_is_progress(harness: Harness) -> None:
    assert await harness.after(100) == ""
    harness.lag(MINE)
    await harness.dog.look()
    harness.work += 1
    assert await harness.after(9) == ""
    harness.now += 5
    harness.lag(MINE, 6)
    assert await harness.dog.look() == ""


async def test_a_service_that_is_away_stops_the_time(harness: Harness) -> None:
    harness.lag(MINE)
    harness.away = "Redis: away"
    assert await harness.after(100) == ""
    harness.away = ""
    assert await harness.after(9) == ""
    assert await harness.after(2) != ""


async def test_anothers_partition_is_theirs_but_nobodys_is_a_reason(harness: Harness) -> None:
    harness.lag(THEIRS)
    assert await harness.after(11) == ""
    harness.owned = None
    assert await harness.after(11) == ""
    harness.owned = {("behaviours", 0)}
    assert "nobody reads it" in await harness.after(1)


async def test_another_life_of_redis_is_told_until_it_is_brought_in_line() -> None:
    vectors, told = Vectors(), 0

    async def renew() -> None:
        nonlocal told
        told += 1
        if told == 1:
            raise ServiceUnavailable("away again")

    life = RedisLife(vectors, renew)
    await life.ping()
    await life.ping()
    assert told == 0
    vectors.life = "2"
    with pytest.raises(ServiceUnavailable):
        await life.ping()
    await life.ping()
    await life.ping()
    assert told == 2


async def test_a_service_says_why_it_is_away_until_it_answers() -> None:
    answers: list[Exception | None] = [ServiceUnavailable("no broker"), None]

    async def ping() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    service = Service("Kafka", ping)
    await service.ask()
    assert service.away == "no broker"
    await service.ask()
    assert service.away == ""


class Told(NoMetrics):
    def __init__(self) -> None:
        self.kinds: list[str] = []

    def count(self, name: str, n: float = 1, label: str = "") -> None:
        self.kinds.append(label)


ITEMS = TP("catalogue", 0)


async def told_of(
    offsets: SourceOffsets,
    items: SourceOffsets = SourceOffsets(0, 0, None, False),  # noqa: B008
    fetched: int | None = None,
) -> tuple[list[str], list[TP]]:
    consumer, told = Consumer(), Told()
    consumer.offsets = {MINE: offsets, ITEMS: items}
    consumer.fetched = fetched
    check = SourceCheck("behaviours", [MINE, ITEMS], told)
    foreign = await check.check(consumer, [MINE], with_windows=[0])  # type: ignore[arg-type]
    return told.kinds, foreign


@pytest.mark.parametrize(
    ("offsets", "kinds"),
    [
        (SourceOffsets(0, 10, 7, True), []),
        (SourceOffsets(0, 10, 10, True), []),
        (SourceOffsets(0, 10, None, False), ["group_lost"]),
        (SourceOffsets(0, 3, 7, True), ["recreated"]),
        (SourceOffsets(8, 10, 7, True), ["expired"]),
    ],
)
async def test_what_happened_to_a_source_is_told(offsets: SourceOffsets, kinds: list[str]) -> None:
    assert await told_of(offsets) == (kinds, [])


async def test_a_topic_whose_commits_are_gone_though_the_group_lives_was_deleted() -> None:
    alive = SourceOffsets(0, 5, 5, True)
    assert await told_of(SourceOffsets(0, 0, None, False), alive) == (["recreated"], [])


async def test_a_commit_of_somebody_else_is_found() -> None:
    assert await told_of(SourceOffsets(0, 10, 2, False)) == ([], [MINE])


async def test_a_broker_that_understates_the_end_is_no_reset() -> None:
    assert await told_of(SourceOffsets(0, 3, 7, True), fetched=7) == ([], [])
