"""What our consumer adds to Faust's: nothing is passed over."""

from __future__ import annotations

import logging
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.transport import ChunkConsumer

SOURCE = TP("behaviours", 0)


class Consumer:
    """The state that the gap check needs, without Faust around it."""

    log = logging.getLogger("test")

    def __init__(self, **following: int) -> None:
        self._next = {SOURCE: following["at"]} if following else {}
        self._sought: dict[TP, int] = {}
        self.seeks: list[tuple[TP, int]] = []

    async def seek(self, tp: TP, offset: int) -> None:
        self.seeks.append((tp, offset))

    async def leaves_gap(self, offset: int) -> bool:
        checked: Any = SimpleNamespace(
            _next=self._next, _sought=self._sought, seek=self.seek, log=self.log
        )
        return await ChunkConsumer._leaves_gap(checked, SOURCE, offset)


async def test_records_that_were_passed_over_are_asked_for_again_once() -> None:
    consumer = Consumer(at=100)
    assert await consumer.leaves_gap(150)
    assert consumer.seeks == [(SOURCE, 100)]
    # Asked for again, the broker has nothing between: compacted, or marks of transactions.
    assert not await consumer.leaves_gap(150)
    assert consumer.seeks == [(SOURCE, 100)]


async def test_what_goes_on_or_goes_back_is_no_gap() -> None:
    assert not await Consumer(at=100).leaves_gap(100)
    assert not await Consumer(at=100).leaves_gap(7)
    assert not await Consumer().leaves_gap(7)


def consumer_of(**state: Any) -> Any:
    """A consumer of the topics of one worker, without Faust around it."""
    consumer: Any = ChunkConsumer.__new__(ChunkConsumer)
    consumer.app = SimpleNamespace(
        tables=SimpleNamespace(changelog_topics={"windows"}),
        copartitioned=frozenset({"windows", "behaviours"}),
        consumer_generation_id=7,
    )
    for name, value in {"_outstanding": Counter(), "_reading": 7, **state}.items():
        setattr(consumer, name, value)
    return consumer


async def test_who_is_stopped_while_it_starts_does_not_join_without_the_changelog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subscribed: list[set[str]] = []

    async def subscribe(self: Any, topics: set[str]) -> None:
        subscribed.append(topics)

    monkeypatch.setattr(driver.Consumer, "subscribe", subscribe)
    await consumer_of().subscribe(["behaviours"])
    assert subscribed == []
    await consumer_of().subscribe(["behaviours", "windows"])
    assert subscribed == [{"behaviours", "windows"}]


@pytest.mark.parametrize(
    ("reading", "fetched"),
    [
        (7, {TP("windows", 0), TP("behaviours", 0), TP("catalogue", 1)}),
        (6, {TP("windows", 0)}),
        (None, {TP("windows", 0)}),
    ],
    ids=["recovered", "of an earlier generation", "recovering"],
)
async def test_sources_are_read_behind_the_recovery_and_where_their_windows_are(
    monkeypatch: pytest.MonkeyPatch, reading: int | None, fetched: set[TP]
) -> None:
    asked: list[set[TP]] = []

    async def getmany(self: Any, active: set[TP], timeout: float) -> dict[TP, Any]:  # noqa: ASYNC109
        asked.append(active)
        return {}

    monkeypatch.setattr(driver.Consumer, "_getmany", getmany)
    active = {TP("windows", 0), TP("behaviours", 0), TP("behaviours", 1), TP("catalogue", 1)}
    await consumer_of(_reading=reading, _with_windows={0})._getmany(active, 1.0)
    assert asked == [fetched]
