"""The change feed ``user-vectors``: each upsert is announced, a forgotten user is a tombstone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from interest.ports import VectorUpdate
from interest.vector import Token
from streams.outbox import Outbox, Record


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record of the feed: a hint; consumers compare tokens."""

    user_id: str
    model_id: str
    token: Token
    event_time_ms: int
    encode_time_ms: int


class ChangeFeed:
    """Announces off the encode path, one batch at a time.

    Args:
        lease_s: an upsert older than this is not announced any more: its worker was stopped in
            between and may have lost the partition, or its user may have been forgotten since.
        aligned: the topic has as many partitions as the sources, so that a user's partition is
            the same in both, and need not be computed from the key.
    """

    def __init__(self, outbox: Outbox, topic: str, lease_s: float, *, aligned: bool) -> None:
        self._outbox = outbox
        self._topic = topic
        self._aligned = aligned
        self.lease_s = lease_s
        self._sending: asyncio.Task[None] | None = None

    async def announce(
        self,
        stored: Sequence[VectorUpdate],
        upserted_s: float,
        expired: Callable[[], None],
        stands: Callable[[VectorUpdate], bool],
    ) -> None:
        """Start to announce; waits for the batch before, so that at most one is under way.

        Args:
            upserted_s: ``time.monotonic()`` from before the upsert.
            expired: called instead where that is longer ago than the lease.
            stands: asked as the sending starts; what does not, as its user was forgotten
                since, is left out. What is sent before that is followed by the tombstone.
        """
        await self.settled()
        self._sending = asyncio.create_task(self._send(stored, upserted_s, expired, stands))

    async def settled(self) -> None:
        """Return when everything handed over is acknowledged by the broker."""
        if self._sending is not None:
            await self._sending

    async def _send(
        self,
        stored: Sequence[VectorUpdate],
        upserted_s: float,
        expired: Callable[[], None],
        stands: Callable[[VectorUpdate], bool],
    ) -> None:
        if time.monotonic() - upserted_s > self.lease_s:
            expired()
            return
        await self._outbox.send_all(
            [
                Record(
                    topic=self._topic,
                    key=update.vector.user_id.encode(),
                    value=msgspec.json.encode(
                        Announcement(
                            user_id=update.vector.user_id,
                            model_id=update.vector.model_id,
                            token=update.vector.token,
                            event_time_ms=update.vector.event_time_ms,
                            encode_time_ms=update.vector.encode_time_ms,
                        )
                    ),
                    partition=update.vector.source_partition if self._aligned else None,
                )
                for update in stored
                if stands(update)
            ]
        )

    async def forget(self, user_id: str) -> None:
        """Remove a user's announcements: a tombstone behind all of ours."""
        await self.settled()
        await self._outbox.send_all([Record(self._topic, user_id.encode(), None)])

    def close(self) -> None:
        """Abandon what is under way."""
        if self._sending is not None:
            self._sending.cancel()
