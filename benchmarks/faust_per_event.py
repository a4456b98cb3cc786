"""The peer of the freshness benchmark: a plain Faust agent that calls the model per event.

    python -m benchmarks.faust_per_event        (settings from INTEREST_… variables)

It does what the worker does, one event at a time: fold the window, write it to a Faust table with a
changelog, encode, upsert. The same decoder, encoder, windows to begin with, and Redis; no compare
with what another worker wrote, no checkpoint, no change feed. It is ready when it has set the
live-model pointer.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from typing import Any

import faust
import numpy as np

from benchmarks.event_log import full_windows
from benchmarks.freshness_rig import items
from interest.bundle import LiveModel
from interest.event import decode_event
from interest.fold import fold
from interest.item import EncodedItem, decode_item
from interest.ports import VectorUpdate
from interest.recent import recent_of
from interest.settings import Settings
from interest.vector import Token, UserVector
from interest.window_bytes import window_to_bytes
from interest_cli.bundles import load_bundle
from interest_cli.env import load_settings
from interest_cli.replay import LoadedBundle
from interest_cli.wiring import user_vectors
from streams.topics import TopicNames


class Peer:
    """Windows of all users, and one event at a time."""

    def __init__(self, settings: Settings, loaded: LoadedBundle) -> None:
        self._loaded = loaded
        self._vectors = user_vectors(settings)
        self._limits = loaded.bundle.config.window
        self._windows = {w.subject_id: w for w in full_windows(self._limits.max_events)}
        catalogue = [decode_item(outgoing.raw) for outgoing in items()]
        rows = loaded.item_encoder.encode_items(catalogue)
        self._items = {
            item.item_id: EncodedItem(item=item, vector=row)
            for item, row in zip(catalogue, rows, strict=True)
        }

    async def ready(self) -> None:
        """Say so."""
        bundle = self._loaded.bundle
        live = LiveModel(model_id=bundle.model_id, collection="peer", dim=bundle.dim)
        await self._vectors.set_live_model(live)

    async def fold(self, raw: bytes, table: Any) -> None:
        """Make one event readable."""
        event = decode_event(raw)
        window = self._windows[event.user_id]
        window = self._windows[event.user_id] = fold(window, [event], self._limits)
        table[event.user_id] = window_to_bytes(window, 0)
        known = {i: self._items[i] for i in window.item_ids if i in self._items}
        [row] = self._loaded.user_encoder.encode([window], known)
        vector = UserVector(
            user_id=event.user_id,
            model_id=self._loaded.bundle.model_id,
            token=Token(0, 1, window.revision),
            event_time_ms=window.event_time_ms,
            encode_time_ms=int(time.time() * 1000),
            n_events=self._limits.max_events,
            vectors=row[np.newaxis],
        )
        await self._vectors.upsert([VectorUpdate(vector, recent_of(window))])


async def main() -> None:
    """Run until killed."""
    settings = load_settings(None, warn=lambda line: print(line, file=sys.stderr))
    peer = Peer(settings, load_bundle(settings))
    with tempfile.TemporaryDirectory(prefix="interest-bench-") as folder:
        app = faust.App(
            settings.group_id,
            datadir=folder,
            broker=f"kafka://{settings.kafka_bootstrap}",
            store="memory://",
            autodiscover=False,
            web_enabled=False,
            topic_partitions=settings.partitions,
            table_standby_replicas=0,
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=settings.session_timeout_s,
            broker_heartbeat_interval=settings.session_timeout_s / 4,
        )
        table = app.Table("windows", partitions=settings.partitions, value_type=bytes)
        topic = app.topic(TopicNames.of(settings).behaviours, value_serializer="raw")

        @app.agent(topic)  # type: ignore[untyped-decorator,unused-ignore]
        async def fold_events(stream: Any) -> None:
            async for raw in stream:
                await peer.fold(raw, table)

        await app.start()
        await peer.ready()
        await app.wait_until_stopped()


if __name__ == "__main__":
    asyncio.run(main())
