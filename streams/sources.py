"""Whether the sources go on where this group stopped, checked when a partition is assigned.

Windows do not depend on it: folding again changes nothing, and a token is no offset. But an
operator must hear of events that were skipped, and of a source that started over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Final

from faust.types import TP

from interest import metrics as m
from interest.ports import Metrics
from streams.transport import ChunkConsumer, SourceOffsets

log = logging.getLogger(__name__)

_FETCH_S: Final = 2.0
_LOOK_S: Final = 0.05


class SourceCheck:
    """Compares what the broker holds with what the group has committed."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def check(
        self, consumer: ChunkConsumer, tps: Iterable[TP], with_windows: Iterable[int]
    ) -> None:
        """Report what happened to these partitions since the last commit.

        Args:
            with_windows: numbers of the partitions whose changelog holds windows, so that
                something was read of them before.

        Raises:
            KafkaError: the broker did not answer.
        """
        read_before = set(with_windows)
        for tp, offsets in sorted((await consumer.source_offsets(tps)).items()):
            if offsets.committed is not None and offsets.committed > offsets.end:
                # There are brokers whose answer is the first offset of the last batch; a fetch
                # tells the true end.
                offsets = offsets._replace(end=await _fetched_end(consumer, tp, offsets))
            for kind, text in _findings(offsets, read_before=tp.partition in read_before):
                log.warning("%s partition %d: %s", tp.topic, tp.partition, text)
                self._metrics.count(m.SOURCE_RESETS, 1, kind)


async def _fetched_end(consumer: ChunkConsumer, tp: TP, offsets: SourceOffsets) -> int:
    deadline = time.monotonic() + _FETCH_S
    while (end := consumer.highwater(tp) or offsets.end) < (offsets.committed or 0):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(_LOOK_S)
    return end


def _findings(offsets: SourceOffsets, *, read_before: bool) -> list[tuple[str, str]]:
    start, end, committed, ours = offsets
    if committed is None:
        if read_before and end:
            return [
                (
                    "group_lost",
                    f"there are windows but no commit of this group: the group was deleted, "
                    f"renamed or has expired; reading again from offset {start}",
                )
            ]
        return []
    found: list[tuple[str, str]] = []
    if committed > end:
        found.append(
            (
                "recreated",
                f"the group stopped at offset {committed}, the topic ends at {end}: it was "
                f"created again or the broker lost records; reading from {start}",
            )
        )
    elif committed < start:
        found.append(
            (
                "expired",
                f"{start - committed} records from offset {committed} on were removed by "
                f"retention before they were read; going on at {start}",
            )
        )
    if not ours:
        found.append(
            (
                "moved",
                f"somebody else set this group's offset to {committed}; going on from there",
            )
        )
    return found
