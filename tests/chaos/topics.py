"""Reading topics back, and the group's offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tests.chaos.oracle import Logged

_FETCH_MS: Final = 200
_MEMBERS_GONE_S: Final = 30.0

Offsets = dict[TopicPartition, int]


class Log:
    """The topics of a run, read from outside; all have the same number of partitions."""

    def __init__(self, bootstrap: str, group: str, n_partitions: int) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._n_partitions = n_partitions

    @asynccontextmanager
    async def _consumer(self, *, group: bool = False) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, group_id=self._group if group else None,
            enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=20,
            metadata_max_age_ms=5_000,
        )  # fmt: skip
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()

    def _partitions(self, *topics: str) -> list[TopicPartition]:
        return [
            TopicPartition(topic, number)
            for topic in topics
            for number in range(self._n_partitions)
        ]

    async def _ends(self, consumer: Any, partitions: Sequence[TopicPartition]) -> Offsets:
        """Give the offset of the next record of each partition, from a fetch.

        The embedded broker answers a request for the latest offset with the first of the last
        batch; only the high watermark of a fetch tells.
        """
        consumer.assign(partitions)
        ends: Offsets = await consumer.end_offsets(partitions)
        filled = [tp for tp in partitions if ends[tp]]
        for tp in filled:
            consumer.seek(tp, ends[tp] - 1)
        waiting = set(filled)
        while waiting:
            for tp, records in (await consumer.getmany(timeout_ms=_FETCH_MS)).items():
                ends[tp] = max(ends[tp], records[-1].offset + 1, consumer.highwater(tp) or 0)
                waiting.discard(tp)
        return ends

    async def read(self, topic: str) -> list[Logged]:
        """Read a topic to its present end."""
        records: list[Logged] = []
        async with self._consumer() as consumer:
            ends = await self._ends(consumer, self._partitions(topic))
            for tp, end in ends.items():
                consumer.assign([tp])
                # Not seek_to_beginning: a fetch from where the assignment began may come between.
                starts = await consumer.beginning_offsets([tp])
                consumer.seek(tp, starts[tp])
                while await consumer.position(tp) < end:
                    for record in (await consumer.getmany(tp, timeout_ms=_FETCH_MS)).get(tp, []):
                        records.append(  # noqa: PERF401  # awaits between
                            Logged(topic, record.partition, record.offset, record.timestamp,
                                   record.key, record.value, tuple(record.headers))
                        )  # fmt: skip
        return records

    async def behind(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        """Count what the group has not committed of each partition; those at the end are left out.

        Raises:
            KafkaError: the broker does not answer.
        """
        partitions = self._partitions(*topics)
        # Committed first: an end that moves meanwhile is no commit beyond it.
        async with self._consumer(group=True) as consumer:
            consumer.assign(partitions)
            starts = await consumer.beginning_offsets(partitions)
            committed: Offsets = {}
            for tp in partitions:
                offset = await consumer.committed(tp)
                committed[tp] = starts[tp] if offset is None else offset
        async with self._consumer() as consumer:
            ends = await self._ends(consumer, partitions)
        return {
            (tp.topic, tp.partition): ends[tp] - committed[tp]
            for tp in partitions
            if ends[tp] != committed[tp]
        }

    async def end(self, topic: str, partition: int) -> int:
        """Give the offset of the next record of a partition."""
        tp = TopicPartition(topic, partition)
        async with self._consumer() as consumer:
            return (await self._ends(consumer, [tp]))[tp]

    async def committed(self, topic: str, partition: int) -> int:
        """Give the offset that the group has committed; 0 before the first."""
        tp = TopicPartition(topic, partition)
        async with self._consumer(group=True) as consumer:
            consumer.assign([tp])
            return await consumer.committed(tp) or 0

    async def reset(self, topics: Sequence[str]) -> None:
        """Set the group back to the beginning; its members must have gone, or be dying.

        Raises:
            KafkaError: the broker refuses for long.
        """
        partitions = self._partitions(*topics)
        async with self._consumer(group=True) as consumer, asyncio.timeout(_MEMBERS_GONE_S):
            consumer.assign(partitions)
            starts = await consumer.beginning_offsets(partitions)
            while True:
                try:
                    await consumer.commit(starts)
                except KafkaError:
                    await asyncio.sleep(0.5)  # members that were killed still count for a while
                else:
                    return


def total(missing: Mapping[tuple[str, int], int]) -> int:
    """Add up what is missing."""
    return sum(abs(n) for n in missing.values())
