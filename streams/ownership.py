"""What a worker does when a partition comes, goes, or is doubted."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from interest.ports import UserVectorStore
from interest.vector import Token
from interest.window import window_to_bytes
from streams.dirty import DirtyUsers, Mark
from streams.outbox import Outbox, Record
from streams.progress import Progress
from streams.transport import ChunkConsumer
from streams.windows import Held, Partition, WindowStore

log = logging.getLogger(__name__)

_READ: Final = 1_000
_LOST_PAUSE_S: Final = 0.5


class Ownership:
    """Settles who owns a partition, and brings Redis in line with its windows."""

    def __init__(
        self,
        *,
        model_id: str,
        changelog: str,
        windows: WindowStore,
        dirty: DirtyUsers,
        progress: Progress,
        vectors: UserVectorStore,
        outbox: Outbox,
    ) -> None:
        self._model_id = model_id
        self._changelog = changelog
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
            marks = [mark for mark, _ in refused]
            partition = self._windows.partitions.get(number)
            if partition is None:
                self._dirty.confirm(marks)
                continue
            generation = self._progress.generation
            offsets = self._progress.of_partition(number)
            if not offsets or not await consumer.commit_offsets(offsets, generation):
                log.warning("partition %d is not ours, or not read yet; its users wait", number)
                await asyncio.sleep(_LOST_PAUSE_S)
            else:
                await self._outbid(partition, refused, generation)
            self._dirty.put_back(marks)

    async def _outbid(
        self, partition: Partition, refused: Sequence[tuple[Mark, Token]], generation: int
    ) -> None:
        era = max(stored.era for _, stored in refused) + 1
        log.warning(
            "Redis holds newer tokens of %d users of partition %d than their owner: "
            "the broker or the group was reset; going on in era %d",
            len(refused), partition.number, era,
        )  # fmt: skip
        records: list[Record] = []
        for mark, _ in refused:
            window = msgspec.structs.replace(partition.window(mark.subject_id), era=era)
            partition.replace(window, generation)
            records.append(
                Record(
                    topic=self._changelog,
                    key=mark.subject_id.encode(),
                    value=window_to_bytes(window, generation),
                    partition=partition.number,
                )
            )
        await self._outbox.send_all(records)

    async def reconcile(self, partition: Partition) -> int:
        """Mark the users whose vector in Redis is missing or older than their window.

        Returns:
            how many were marked.

        Raises:
            ServiceUnavailable: Redis does not answer; a retry is safe.
        """
        subjects = list(partition.held)
        n_marked = 0
        for first in range(0, len(subjects), _READ):
            part = subjects[first : first + _READ]
            tokens = await self._vectors.fetch_tokens(part, self._model_id)
            for subject_id, stored in zip(part, tokens, strict=True):
                held = partition.held.get(subject_id)
                if held is not None and _is_behind(stored, held):
                    self._dirty.mark(subject_id, partition.number, None)
                    n_marked += 1
        return n_marked


def _is_behind(stored: Token | None, held: Held) -> bool:
    return stored is None or stored < held.token
