"""What our consumer adds to Faust's: nothing is passed over."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

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
