"""Faust's transport, changed in one place: records reach an agent a partition fetch at a time.

Faust pays some 140 µs for each message it hands over, two asyncio tasks among them. So one
message here stands for all records of one partition in one fetch: its value is the records, its
offset the last of them. Faust's own acknowledgements, gap and commit bookkeeping is wrong for
such chunks and stays unused: topics have ``acks=False``, streams are ``noack()``, and the
checkpoint commits by :meth:`ChunkConsumer.commit_offsets`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import faust
from aiokafka.errors import IllegalStateError, KafkaError
from faust.transport.consumer import RecordMap, ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message

from streams.consumer_thread import ConsumerThread, SourceOffsets

#: Chunks of one partition that may wait for or be in an agent. More would only be memory.
_CHUNKS_AHEAD = 2
#: How long to wait for other partitions while a busy one may become free, seconds. The wait
#: cannot be interrupted, and a freed partition's records are already here.
_BUSY_WAIT_S = 0.02


class Chunk:
    """The records of one partition fetch, in offset order; never empty.

    ``lap`` counts the seeks of the consumer: chunks of one lap go on where those before ended.
    ``follows`` is where the chunk before it ended, or where reading began: of an ordinary topic the
    offset of its first record, behind compacted records or markers of transactions a lower one.
    """

    __slots__ = ("follows", "generation", "lap", "records", "tp")

    def __init__(
        self, tp: TP, records: Sequence[Any], generation: int, lap: int, follows: int
    ) -> None:
        self.tp = tp
        self.records = records
        self.generation = generation
        self.lap = lap
        self.follows = follows


class ChunkSchema(faust.Schema[Any, Any]):
    """Passes a chunk through as it is: the agents decode bytes themselves."""

    def loads_key(self, app: Any, message: Message, **kwargs: Any) -> Any:
        """Give no key: each record has its own."""
        return None

    def loads_value(self, app: Any, message: Message, **kwargs: Any) -> Any:
        """Give the chunk."""
        return message.value


class ChunkConsumer(driver.Consumer):
    """Faust's consumer with chunks, bounded per partition."""

    _thread: ConsumerThread
    #: Partitions with chunks that an agent has not finished, and how many.
    _outstanding: Counter[TP]
    _freed: asyncio.Event
    #: The offset each source partition must go on at; a higher one was asked for again at
    #: ``_sought``, and then is believed: compaction and transactions leave gaps.
    _next: dict[TP, int]
    _sought: dict[TP, int]
    #: The generation whose recovery is over, and the one in which sources are read.
    _recovered: int | None
    _reading: int | None
    #: Partitions whose changelog is assigned, too.
    _with_windows: set[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outstanding = Counter()
        self._freed = asyncio.Event()
        self._next = {}
        self._sought = {}
        self._recovered = None
        self._reading = None
        self._with_windows = set()
        self._lap = 0

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Subscribe, unless the changelog is missing.

        A worker that is stopped while it starts would join the group without it. Faust's leader
        then deals out the changelog apart from the sources, to all members.
        """
        topics = set(topics)
        if self.app.tables.changelog_topics <= topics:
            await super().subscribe(topics)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        """Pause, and stop fetching what is a changelog; see :meth:`_set_fetching`."""
        tps = set(tps)
        super().pause_partitions(tps)
        self._set_fetching(tps, fetch=False)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume, also the fetching of changelogs."""
        tps = set(tps)
        super().resume_partitions(tps)
        self._set_fetching(tps, fetch=True)
        self._freed.set()

    def _set_fetching(self, tps: set[TP], *, fetch: bool) -> None:
        """Pause or resume changelogs in aiokafka itself.

        Faust pauses by not asking for records. The windows that we write would be fetched all
        the same and lie unread, and unread records make aiokafka hold back the next fetch.
        """
        self._thread.set_fetching([tp for tp in tps if self._is_changelog_tp(tp)], fetch=fetch)

    async def _getmany(  # the time-out is part of Faust's interface
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109
    ) -> RecordMap:
        active = active_partitions or set()
        if self._reading != self.app.consumer_generation_id:
            active = {tp for tp in active if self._is_changelog_tp(tp)}
        together = cast(Any, self.app).copartitioned
        free = {
            tp
            for tp in active
            if self._outstanding[tp] < _CHUNKS_AHEAD
            # Torn apart by an assignment, see subscribe(), they wait for the next one.
            and (tp.partition in self._with_windows or tp.topic not in together)
        }
        if not free:
            # An empty set would mean "all partitions" to the fetcher.
            await self._wait_freed(timeout)
            return {}
        # At the end of a recovery sources take over from changelogs, which bring nothing more.
        waits = len(free) == len(active) and self._reading == self.app.consumer_generation_id
        return await super()._getmany(free, timeout if waits else _BUSY_WAIT_S)

    async def _wait_freed(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until something can be fetched again, or nothing may be, at most so long."""
        self._freed.clear()
        await self.wait_first(self._freed.wait(), self.suspend_flow.wait(), timeout=timeout)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109
    ) -> AsyncIterator[tuple[TP, Message]]:
        """Fetch, and yield one message for each partition that had records."""
        await self._begin_reading()
        if self.flow_active and not self._get_active_partitions():
            # Faust would sleep for a second, at the end of each recovery.
            await self._wait_freed(timeout)
            return
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        for raw_tp, batch in records.items():
            tp = ensure_TP(raw_tp)
            if not self.flow_active or self.app.consumer_generation_id != generation:
                self._reading = None  # what is dropped here has to be read again
                return
            if self._reading != generation and not self._is_changelog_tp(tp):
                continue  # asked for in an earlier generation
            if batch and (active is None or tp in active):
                read = self._read_offset[tp]
                if read is not None and batch[-1].offset < read:
                    # The topic starts over. Faust would drop the chunk without a word;
                    # folding again is harmless.
                    self.log.warning("%s goes back from offset %d to %d", tp, read, batch[0].offset)
                    self._read_offset[tp] = None
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                follows = self._next.get(tp, batch[0].offset)
                if not self._is_changelog_tp(tp):
                    if await self._leaves_gap(tp, batch[0].offset):
                        continue
                    self._next[tp] = batch[-1].offset + 1
                    self._outstanding[tp] += 1
                yield tp, self._chunk_message(tp, batch, generation, follows)

    async def perform_seek(self) -> None:
        """Do nothing: Faust's recovery seeks too early, see :meth:`recovery_ended`."""

    def recovery_ended(self) -> None:
        """Let the sources be read, from their commits.

        Faust lets them flow already while it seeks, and clears the agents' queues behind that. A
        chunk that came in between would be passed over for good, or its partition would wait for
        ever for an agent to finish it.
        """
        if self.flow_active:  # else the next rebalance has begun
            self._recovered = self.app.consumer_generation_id
            self._freed.set()

    async def _begin_reading(self) -> None:
        """Seek to the commits where sources are to be read, and are not."""
        generation = self.app.consumer_generation_id
        if not self.flow_active or self._recovered != generation or self._reading == generation:
            return
        try:
            await super().perform_seek()
        except (KafkaError, IllegalStateError) as error:
            self.log.warning("seeking to the commits failed: %r", error)
            return
        if self.flow_active and self.app.consumer_generation_id == generation:
            self._reading = generation

    def known_end(self, tp: TP, told: int) -> int:
        """Give the end of a partition, from what was told and from what was fetched.

        There are brokers that tell the first offset of the last batch. A fetch brings the true
        end; and what an agent has not finished was there, too.
        """
        return max(told, self.fetched_end(tp) or 0, self._next.get(tp, 0))

    def fetched_end(self, tp: TP) -> int | None:
        """Give the end that the last fetch brought; None before, and of what is not ours."""
        try:
            return self.highwater(tp)
        except (AssertionError, IllegalStateError):
            return None  # aiokafka asserts the assignment, which a rebalance has just taken

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the commits, and take note of where each partition must go on."""
        self._next.clear()
        self._sought.clear()
        offsets = await super().seek_to_committed()
        self._next.update(offsets)
        self._lap += 1
        cast(Any, self.app).on_seek(self._lap, offsets)
        return offsets

    def read_again(self) -> None:
        """Read all sources again from their commits: a chunk has not come to its agent."""
        self._outstanding.clear()  # nobody will finish it
        self._reading = None
        self._freed.set()

    async def _leaves_gap(self, tp: TP, offset: int) -> bool:
        """Tell whether records before ``offset`` were passed over; they are asked for again.

        Nothing should pass over any. But a commit behind such a gap would lose them for good.
        """
        expected = self._next.get(tp)
        if expected is None or offset <= expected or self._sought.get(tp) == expected:
            return False
        self._sought[tp] = expected
        self.log.warning("%s goes on at %d instead of %d: reading again", tp, offset, expected)
        try:
            await self.seek(tp, expected)
        except IllegalStateError as error:
            self.log.warning("the rebalance under way seeks instead: %r", error)
        return True

    def _chunk_message(
        self, tp: TP, batch: Sequence[Any], generation: int, follows: int
    ) -> Message:
        last = batch[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000.0,
            last.timestamp_type,
            None,
            None,
            Chunk(tp, batch, generation, self._lap, follows),  # type: ignore[arg-type]  # ours to decode
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )

    def finished(self, chunk: Chunk) -> None:
        """Say that an agent is through with a chunk, so that its partition is fetched again."""
        if chunk.generation == self.app.consumer_generation_id and self._outstanding[chunk.tp]:
            self._outstanding[chunk.tp] -= 1
            self._freed.set()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Start counting anew: the agents' queues were cleared by the rebalance."""
        self._outstanding.clear()
        self._recovered = self._reading = None
        self._with_windows = {tp.partition for tp in assigned if self._is_changelog_tp(tp)}
        self._freed.set()
        await super().on_partitions_assigned(assigned, generation_id)

    async def commit_offsets(self, offsets: Mapping[TP, int], generation: int) -> bool:
        """Commit, if this worker is still in ``generation``; return whether the broker took it.

        Faust's own commit crashes the consumer when the broker is away and books failed
        commits as done.

        Raises:
            KafkaError: the broker did not answer; whether it committed is not known.
        """
        return await self._thread.commit_offsets(offsets, generation)

    async def source_offsets(self, tps: Iterable[TP]) -> dict[TP, SourceOffsets]:
        """Ask the broker for start, end and commit of partitions.

        Raises:
            KafkaError: it did not answer.
        """
        return await self._thread.source_offsets(tps)


class ChunkTransport(driver.Transport):
    """Faust's aiokafka transport with the chunked consumer."""

    Consumer: ClassVar[type[ChunkConsumer]] = ChunkConsumer
