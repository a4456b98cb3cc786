"""Reading topics back, and the group's offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tests.chaos.oracle import Logged


class Log:
    """The topics of a run, read from outside; all have the same number of partitions."""

    def __init__(self, bootstrap: str, group: str, n_partitions: int) -> None:
        self._n_partitions = n_partitions
        self._bootstrap = bootstrap
        self._group = group

    @asynccontextmanager
    async def _consumer(self, group: str | None) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, group_id=group, enable_auto_commit=False,
            auto_offset_reset="earliest", fetch_max_wait_ms=20, metadata_max_age_ms=5_000,
        )  # fmt: skip
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self._n_partitions)]

    async def read(self, topic: str) -> list[Logged]:
        """Read a topic to its present end."""
        records: list[Logged] = []
        async with self._consumer(None) as consumer:
            partitions = self._partitions(topic)
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            for tp, end in ends.items():
                while await consumer.position(tp) < end:
                    fetched = await consumer.getmany(tp, timeout_ms=500)
                    for record in fetched.get(tp, []):
                        records.append(  # noqa: PERF401  # awaits between
                            Logged(topic, record.partition, record.offset, record.timestamp,
                                   record.key, record.value, tuple(record.headers))
                        )  # fmt: skip
        return records

    async def behind(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        """Count for each partition what the group has not committed; those at the end are left out.

        Raises:
            KafkaError: the broker does not answer.
        """
        missing: dict[tuple[str, int], int] = {}
        async with self._consumer(self._group) as consumer:
            partitions = [tp for topic in topics for tp in self._partitions(topic)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            starts = await consumer.beginning_offsets(partitions)
            for tp in partitions:
                committed = await consumer.committed(tp)
                done = starts[tp] if committed is None else committed
                if done != ends[tp]:
                    missing[tp.topic, tp.partition] = ends[tp] - done
        return missing

    async def end(self, topic: str, partition: int) -> int:
        """Give the offset of the next record of a partition."""
        tp = TopicPartition(topic, partition)
        async with self._consumer(None) as consumer:
            ends: dict[TopicPartition, int] = await consumer.end_offsets([tp])
            return ends[tp]

    async def committed(self, topic: str, partition: int) -> int:
        """Give the offset that the group has committed; 0 before the first."""
        tp = TopicPartition(topic, partition)
        async with self._consumer(self._group) as consumer:
            consumer.assign([tp])
            return await consumer.committed(tp) or 0

    async def reset(self, topics: Sequence[str]) -> None:
        """Set the group back to the beginning; it must have no member."""
        async with self._consumer(self._group) as consumer:
            partitions = [tp for topic in topics for tp in self._partitions(topic)]
            consumer.assign(partitions)
            offsets = await consumer.beginning_offsets(partitions)
            for attempt in range(60):
                try:
                    await consumer.commit(offsets)
                except KafkaError:
                    if attempt == 59:
                        raise
                    await asyncio.sleep(0.5)  # members that were killed are still counted
                else:
                    return


def total(missing: Mapping[tuple[str, int], int]) -> int:
    """Add up what is missing."""
    return sum(abs(n) for n in missing.values())
