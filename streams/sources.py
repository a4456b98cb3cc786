"""Whether the sources go on where this group stopped, checked when a partition is assigned.

Windows do not depend on it: folding again changes nothing, and a token is no offset. But an
operator must hear of events that were skipped, and of a source that started over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from faust.types import TP

from interest import metrics as m
from interest.ports import Metrics
from streams.consumer_thread import SourceOffsets
from streams.transport import ChunkConsumer

log = logging.getLogger(__name__)

_FETCH_S: Final = 2.0
_LOOK_S: Final = 0.05


class SourceCheck:
    """Compares what the broker holds with what the group has committed.

    Args:
        behaviours: the source of users; the topic of which every partition is committed.
    """

    def __init__(self, behaviours: str, everything: Iterable[TP], metrics: Metrics) -> None:
        self._behaviours = behaviours
        self._everything = tuple(everything)
        self._metrics = metrics

    async def check(
        self, consumer: ChunkConsumer, tps: Iterable[TP], with_windows: Collection[int]
    ) -> list[TP]:
        """Report what happened to these partitions since the last commit.

        Args:
            with_windows: numbers of the partitions whose changelog holds windows, so that
                something was read of them before.

        Returns:
            the partitions whose commit is not ours, for :meth:`report_moved`.

        Raises:
            KafkaError: the broker did not answer.
        """
        known = await consumer.source_offsets({*self._everything, *tps})
        if with_windows:
            self._check_commits(known)
        foreign: list[TP] = []
        for tp in sorted(tps):
            offsets = known[tp]
            committed = offsets.committed
            if committed is None:
                continue
            end = offsets.end
            if committed > end:
                # There are brokers whose answer is the first offset of the last batch; a fetch
                # tells the true end.
                end = await _fetched_end(consumer, tp, committed, end)
            if committed > end:
                self._report(
                    tp, "recreated",
                    f"the group stopped at offset {committed}, the topic ends at {end}: it was "
                    f"made again, or the broker lost records; reading from {offsets.start}",
                )  # fmt: skip
            elif committed < offsets.start:
                self._report(
                    tp, "expired",
                    f"{offsets.start - committed} records from offset {committed} on were removed "
                    f"by retention before they were read; going on at {offsets.start}",
                )  # fmt: skip
            if not offsets.ours:
                foreign.append(tp)
        return foreign

    def _check_commits(self, known: Mapping[TP, SourceOffsets]) -> None:
        """Report that nothing of the users' topic is committed, though windows came of it."""
        committed = {tp for tp, offsets in known.items() if offsets.committed is not None}
        if any(tp.topic == self._behaviours for tp in committed):
            return
        first = TP(self._behaviours, 0)
        if committed:
            self._report(
                first, "recreated",
                "this group has commits, but none of this topic any more: it was deleted; "
                "reading it from its beginning",
            )  # fmt: skip
        else:
            self._report(
                first, "group_lost",
                "there are windows but no commits: the group was deleted, renamed or has "
                "expired; reading from the beginning",
            )  # fmt: skip

    def report_moved(self, foreign: Iterable[TP]) -> None:
        """Report offsets that somebody else committed.

        To be called when it is known that this broker keeps the metadata of commits, by which
        ours are told from others.
        """
        for tp in foreign:
            self._report(tp, "moved", "somebody else set this group's offset; going on from there")

    def _report(self, tp: TP, kind: str, text: str) -> None:
        log.warning("%s partition %d: %s", tp.topic, tp.partition, text)
        self._metrics.count(m.SOURCE_RESETS, 1, kind)


async def _fetched_end(consumer: ChunkConsumer, tp: TP, committed: int, end: int) -> int:
    deadline = time.monotonic() + _FETCH_S
    while (fetched := consumer.fetched_end(tp) or end) < committed and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)
    return fetched
