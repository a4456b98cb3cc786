"""What a worker does when a partition comes, goes, or is doubted."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec
from aiokafka.errors import KafkaError
from faust.types import TP

from interest.ports import UserVectorStore
from interest.vector import Token, VectorHead
from streams.dirty import DirtyUsers, Mark
from streams.items_feed import KnownItem
from streams.outbox import Outbox, Record
from streams.partitions import Partition
from streams.progress import Progress
from streams.transport import ChunkConsumer
from streams.window_records import Held, WindowRecords
from streams.windows import WindowStore

log = logging.getLogger(__name__)

_READ: Final = 1_000
_LOST_PAUSE_S: Final = 0.5
#: Broker and worker stamp announcements and vectors by their own clocks.
_CLOCK_SKEW_MS: Final = 5_000


class Ownership:
    """Settles who owns a partition, and brings Redis in line with its windows."""

    def __init__(
        self,
        *,
        model_id: str,
        records: WindowRecords,
        windows: WindowStore,
        dirty: DirtyUsers,
        progress: Progress,
        vectors: UserVectorStore,
        outbox: Outbox,
    ) -> None:
        self._model_id = model_id
        self._records = records
        self._windows = windows
        self._dirty = dirty
        self._progress = progress
        self._vectors = vectors
        self._outbox = outbox

    async def refused(
        self, consumer: ChunkConsumer, refusals: Sequence[tuple[Mark, Token]]
    ) -> None:
        """Answer upserts that a higher token refused: ask the broker who owns the partition.

        A commit that moves nothing proves ownership. An owner outbids what is stored by a
        higher era, written to the changelog first; who has lost the partition lets it go.
        """
        by_partition: defaultdict[int, list[tuple[Mark, Token]]] = defaultdict(list)
        for mark, stored in refusals:
            by_partition[mark.partition].append((mark, stored))
        for number, refused in by_partition.items():
            partition = self._windows.partitions.get(number)
            held: Collection[str] = () if partition is None else partition.held
            # Revoked, forgotten or idle meanwhile: there is nothing to write.
            self._dirty.confirm([mark for mark, _ in refused if mark.subject_id not in held])
            refused = [pair for pair in refused if pair[0].subject_id in held]
            marks = [mark for mark, _ in refused]
            if partition is None or not marks:
                continue
            if await self.is_owner(consumer):
                await self._outbid(partition, refused, self._progress.generation)
                self._dirty.put_back(marks)
            else:
                log.warning("partition %d may not be ours any more; its users wait", number)
                # Not at once: until a rebalance tells, every try would be refused again. In
                # flight they hold the checkpoint, as they must.
                loop = asyncio.get_running_loop()
                loop.call_later(_LOST_PAUSE_S, self._dirty.put_back, marks)

    async def is_owner(self, consumer: ChunkConsumer) -> bool:
        """Ask the broker whether this worker is in the group's present generation.

        A commit that moves nothing tells, of any partition: the broker refuses a former
        generation, and within one a partition has one owner.
        """
        try:
            async with self._progress.committing:
                offsets = dict(self._progress.committed) or await _one_commit(consumer)
                return bool(offsets) and await consumer.commit_offsets(
                    offsets, self._progress.generation
                )
        except KafkaError as error:
            log.warning("the broker does not say who owns a partition: %s", error)
            return False

    async def _outbid(
        self, partition: Partition, refused: Sequence[tuple[Mark, Token]], generation: int
    ) -> None:
        if self._windows.partitions.get(partition.number) is not partition:
            return  # revoked while the broker answered
        era = max(stored.era for _, stored in refused) + 1
        log.warning(
            "Redis holds newer tokens of %d users of partition %d than their owner: "
            "the broker or the group was reset; going on in era %d",
            len(refused), partition.number, era,
        )  # fmt: skip
        records: list[Record] = []
        for mark, _ in refused:
            if mark.subject_id not in partition.held:
                continue  # forgotten while the broker answered
            window = msgspec.structs.replace(partition.window(mark.subject_id), era=era)
            partition.replace(window, generation)
            records.append(self._records.window(partition.number, partition.held[mark.subject_id]))
        await self._outbox.send_all(records)

    async def write_eras(self, partitions: Sequence[Partition]) -> None:
        """Tell the changelog of eras that have risen: the next owner writes no lower one."""
        risen = [partition for partition in partitions if partition.risen is not None]
        await self._outbox.send_all(
            [self._records.tombstone(each.number, each.risen) for each in risen if each.risen]
        )
        for partition in risen:
            partition.risen = None

    async def reconcile(self, partition: Partition, known: Mapping[str, KnownItem]) -> int:
        """Mark the users whose vector is missing, older than their window, or than an item in it.

        The last is how an item that changed while nobody owned the partition reaches its
        holders: who marks them knows it in memory only. First the markers return to a store that
        came back without them while nobody owned the partition.

        Returns:
            how many were marked.

        Raises:
            ServiceUnavailable: Redis does not answer; a retry is safe.
        """
        await self._vectors.restore_markers(
            [marker for marker in partition.markers.values() if marker.place]
        )
        subjects = list(partition.held)
        n_marked = 0
        for first in range(0, len(subjects), _READ):
            part = subjects[first : first + _READ]
            heads = await self._vectors.fetch_heads(part, self._model_id)
            for subject_id, stored in zip(part, heads, strict=True):
                held = partition.held.peek(subject_id)
                if held is not None and _is_behind(stored, held, known):
                    self._dirty.mark(subject_id, partition.number, None)
                    n_marked += 1
        return n_marked


async def _one_commit(consumer: ChunkConsumer) -> dict[TP, int]:
    """Give what the broker has of some partition; its start where it has nothing.

    Never the position of the consumer: records before that may not be folded yet.

    Raises:
        KafkaError: the broker did not answer.
    """
    sources = sorted(tp for tp in consumer.assignment() if not consumer._is_changelog_tp(tp))
    found = await consumer.source_offsets(sources[:1])
    return {
        tp: offsets.start if offsets.committed is None else offsets.committed
        for tp, offsets in found.items()
    }


def _is_behind(stored: VectorHead | None, held: Held, known: Mapping[str, KnownItem]) -> bool:
    if stored is None or stored.token < held.token:
        return True
    newest_ms = max(
        (known[item_id].announced_ms for item_id in held.window.item_ids if item_id in known),
        default=0,
    )
    return newest_ms + _CLOCK_SKEW_MS >= stored.encode_time_ms
