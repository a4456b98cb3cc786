"""What is asked of Kafka in the consumer's own thread: fetches, seeks, commits, offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaTimeoutError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams import fetched, lenient_records

#: How long the broker may hold a fetch during a recovery: what is asked of it next waits behind.
_RECOVERY_FETCH_MS: Final = 20
_COMMIT_S: Final = 10.0
_SOURCE_S: Final = 30.0
#: Metadata of our commits: one without it was made by somebody else.
COMMIT_MARK: Final = "interest"


class SourceOffsets(NamedTuple):
    """What a broker says of a partition: first and end offset, the group's commit, whether ours."""

    start: int
    end: int
    committed: int | None
    ours: bool


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with the fetch wait of the settings."""

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        lenient_records.install()
        fetched.install()
        consumer = super()._create_worker_consumer(transport)
        # Faust writes 1500 ms into the code, and aiokafka reads it at start.
        consumer._fetch_max_wait_ms = cast(Any, self.app).fetch_max_wait_ms
        return consumer

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Fetch no source yet: sources are read when the recovery is over, from their commits.

        A broker answers in turn. What is asked of it while it waits for records, such as the
        ends of topics, is not answered until they come.
        """
        consumer = self._ensure_consumer()
        consumer._fetcher._fetch_max_wait_ms = _RECOVERY_FETCH_MS
        for tp in self._sources(consumer):
            consumer.pause(tp)
        await super().on_partitions_assigned(assigned, generation_id)

    def _sources(self, consumer: Any) -> list[TopicPartition]:
        is_changelog = self.consumer._is_changelog_tp
        return [tp for tp in consumer.assignment() if not is_changelog(TP(*tp))]

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every source partition to its commit, or to its start where there is none.

        aiokafka passes over partitions without a commit. What was fetched of them during a
        rebalance, and dropped, would not be read again.
        """
        seeking: Mapping[TP, int] = await self.call_thread(self._seek_to_committed)
        return seeking

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        sources = self._sources(consumer)
        commits = {tp: await consumer.committed(tp) for tp in sources}
        fresh = [tp for tp, offset in commits.items() if offset is None]
        starts = await consumer.beginning_offsets(fresh) if fresh else {}
        offsets = {tp: starts[tp] if o is None else o for tp, o in commits.items()}
        consumer._fetcher._fetch_max_wait_ms = consumer._fetch_max_wait_ms
        for tp, offset in offsets.items():
            consumer.seek(tp, offset)
            consumer.resume(tp)
        return {TP(*tp): offset for tp, offset in offsets.items()}

    def set_fetching(self, tps: Collection[TP], *, fetch: bool) -> None:
        """Pause or resume partitions in aiokafka itself; those that have gone are passed over."""
        wanted = [TopicPartition(*tp) for tp in tps]

        def apply() -> None:
            if self._consumer is not None:
                for tp in self._consumer.assignment().intersection(wanted):
                    (self._consumer.resume if fetch else self._consumer.pause)(tp)

        if wanted and self._consumer is not None:
            self.thread_loop.call_soon_threadsafe(apply)

    async def commit_offsets(self, offsets: Mapping[TP, int], generation: int) -> bool:
        """Commit, if this worker is still in ``generation``; return whether the broker took it.

        Raises:
            KafkaError: the broker did not answer; whether it committed is not known.
        """
        committed: bool = await self.call_thread(self._commit_marked, offsets, generation)
        return committed

    async def _commit_marked(self, offsets: Mapping[TP, int], generation: int) -> bool:
        consumer = self._ensure_consumer()
        if consumer._coordinator.generation != generation:
            return False
        marks = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, COMMIT_MARK)
            for tp, offset in offsets.items()
        }
        try:
            # aiokafka retries for ever; a commit that hangs would hold one of the two
            # places this thread has for calls.
            await asyncio.wait_for(consumer.commit(marks), _COMMIT_S)
        except (CommitFailedError, IllegalStateError):
            return False
        except TimeoutError as error:
            raise KafkaTimeoutError(f"no answer to a commit in {_COMMIT_S:g} s") from error
        return True

    async def source_offsets(self, tps: Iterable[TP]) -> dict[TP, SourceOffsets]:
        """Ask the broker for start, end and commit of partitions.

        Raises:
            KafkaError: it did not answer.
        """
        wanted = [TopicPartition(*tp) for tp in tps]
        answer: dict[TP, SourceOffsets] = await self.call_thread(self._source_offsets, wanted)
        return answer

    async def _source_offsets(self, wanted: list[TopicPartition]) -> dict[TP, SourceOffsets]:
        consumer = self._ensure_consumer()
        # At once: each may wait for a fetch that the broker holds.
        asked = asyncio.gather(
            consumer.beginning_offsets(wanted),
            consumer.end_offsets(wanted),
            consumer._coordinator.fetch_committed_offsets(wanted),
        )
        try:
            starts, ends, commits = await asyncio.wait_for(asked, _SOURCE_S)
        except TimeoutError as error:
            raise KafkaTimeoutError(f"no answer in {_SOURCE_S:g} s") from error
        found: dict[TP, SourceOffsets] = {}
        for tp in wanted:
            commit = commits.get(tp)
            found[TP(*tp)] = SourceOffsets(
                starts[tp],
                ends[tp],
                None if commit is None or commit.offset < 0 else commit.offset,
                commit is not None and commit.metadata == COMMIT_MARK,
            )
        return found
