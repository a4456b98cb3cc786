"""Stand-ins for the services around the streams, for unit tests only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
from faust.types import TP
from numpy.typing import NDArray

from interest.bundle import LiveModel
from interest.errors import EncoderUnavailable
from interest.forgetting import Marker, joined, subject_hash
from interest.item import EncodedItem, Item, unit
from interest.ports import LiveUser, UserState, VectorUpdate
from interest.recent import recent_from_bytes
from interest.vector import Token, VectorHead
from interest.window import BehaviourWindow
from streams.outbox import Record
from streams.partitions import Partition
from streams.progress import Progress
from streams.transport import Chunk
from streams.window_records import WindowRecords

T0 = 1_700_000_000_000


RECORDS = WindowRecords("windows")


def empty_partition(number: int) -> Partition:
    return Partition(number, partial(subject_hash, ""), known_items={"i"})


class KafkaRecord(NamedTuple):
    """What the agents use of aiokafka's ConsumerRecord."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = T0
    timestamp_type: int = 1
    headers: tuple[tuple[str, bytes], ...] = ()


def event_json(event_id: str, user_id: str = "u", ts: int = T0, **fields: Any) -> bytes:
    values = {"event_id": event_id, "user_id": user_id, "ts": ts, "type": "click", "item_id": "i"}
    return json.dumps({**values, **fields}).encode()


def chunk(records: Sequence[KafkaRecord], generation: int = 1) -> Chunk:
    first = records[0]
    return Chunk(TP(first.topic, first.partition), records, generation, 1, first.offset)


def sought(progress: Progress, fetched: Chunk) -> Chunk:
    """Give a chunk with which reading begins."""
    progress.seek(fetched.lap, {fetched.tp: fetched.follows})
    return fetched


class Outbox:
    """Keeps what was sent; ``fail`` is called before each send."""

    def __init__(self, fail: Callable[[], None] = lambda: None) -> None:
        self.sent: list[Record] = []
        self.first = asyncio.Event()
        self.fail = fail

    async def send_all(self, records: Sequence[Record]) -> None:
        self.fail()
        self.sent.extend(records)
        self.first.set()


class Windows:
    """Partitions without Faust."""

    def __init__(self) -> None:
        self.partitions: dict[int, Partition] = {}

    def partition(self, number: int) -> Partition:
        return self.partitions.setdefault(number, empty_partition(number))

    def n_windows(self) -> int:
        return sum(len(partition.held) for partition in self.partitions.values())


class Vectors:
    """A vector store in a dict, with the compare-and-set of the real one."""

    def __init__(self) -> None:
        self.stored: dict[str, VectorUpdate] = {}
        self.markers: dict[bytes, Marker] = {}
        self.forget_key = ""
        self.life = "1"
        self.popular: dict[int, Mapping[str, float]] = {}
        self.fail: Callable[[], None] = lambda: None

    async def ping(self) -> None: ...

    async def upsert(self, updates: Sequence[VectorUpdate]) -> list[Token | Marker | None]:
        self.fail()
        answers: list[Token | Marker | None] = []
        for update in updates:
            held = self.stored.get(update.vector.user_id)
            marker = self.markers.get(subject_hash(self.forget_key, update.vector.user_id))
            if marker is not None and update.vector.token <= marker.token:
                answers.append(marker)
            elif held is not None and held.vector.token > update.vector.token:
                answers.append(held.vector.token)
            else:
                self.stored[update.vector.user_id] = update
                answers.append(None)
        return answers

    async def forget(self, user_id: str, marker: Marker) -> Marker:
        self.fail()
        held = self.stored.pop(user_id, None)
        found = Marker(marker.subject_hash, 0, held.vector.token, 1) if held else None
        stands = joined(joined(marker, self.markers.get(marker.subject_hash)), found)
        self.markers[marker.subject_hash] = msgspec.structs.replace(stands, place=1)
        return self.markers[marker.subject_hash]

    async def restore_markers(self, markers: Sequence[Marker]) -> int:
        self.fail()
        for marker in markers:
            self.markers[marker.subject_hash] = joined(
                marker, self.markers.get(marker.subject_hash)
            )
        outranked = [
            user_id
            for user_id, update in self.stored.items()
            if (marked := self.markers.get(subject_hash(self.forget_key, user_id))) is not None
            and update.vector.token <= marked.token
        ]
        for user_id in outranked:
            del self.stored[user_id]
        return len(outranked)

    async def epoch(self) -> str:
        self.fail()
        return self.life

    async def fetch(self, user_ids: Sequence[str], model_id: str) -> list[UserState | None]:
        found = [self.stored.get(user_id) for user_id in user_ids]
        return [
            UserState(held.vector, recent_from_bytes(held.recent)) if held else None
            for held in found
        ]

    async def fetch_live(self, user_id: str, *, recent: bool) -> LiveUser:
        live = await self.live_model()
        [state] = [None] if live is None else await self.fetch([user_id], live.model_id)
        return LiveUser(live, state)

    async def fetch_heads(self, user_ids: Sequence[str], model_id: str) -> list[VectorHead | None]:
        found = [self.stored.get(user_id) for user_id in user_ids]
        return [
            VectorHead(held.vector.token, held.vector.encode_time_ms) if held else None
            for held in found
        ]

    async def live_model(self) -> LiveModel | None:
        return None

    async def set_live_model(self, live: LiveModel) -> None: ...

    async def publish_popular(self, partition: int, scores: Mapping[str, float]) -> None:
        self.popular[partition] = scores

    async def fetch_popular(self, k: int) -> list[tuple[str, float]]:
        return []

    async def close(self) -> None: ...


class Items:
    """An item lookup in a dict."""

    def __init__(self, *item_ids: str) -> None:
        self.items = {
            item_id: EncodedItem(
                item=Item(item_id=item_id, title=item_id), vector=unit(np.array([1.0, 2.0]))
            )
            for item_id in item_ids
        }

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        return {i: self.items[i] for i in item_ids if i in self.items}

    def put(self, items: Sequence[EncodedItem]) -> None: ...

    def drop(self, item_ids: Sequence[str]) -> None: ...


class CountingEncoder:
    """A vector that shows how many events the window had; fails on what it is told to."""

    dim = 2

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.poison: Callable[[BehaviourWindow], bool] = lambda window: False
        self.nan: Callable[[BehaviourWindow], bool] = lambda window: False
        #: Windows that the device takes at once.
        self.most = 1_000
        self.n_refused = 0

    def n_tokens(self, window: BehaviourWindow) -> int:
        return len(window)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        if len(windows) > self.most:
            self.n_refused += 1
            raise EncoderUnavailable("out of memory")
        if windows[0].subject_id != "canary":
            self.batches.append([window.subject_id for window in windows])
        if any(self.poison(window) for window in windows):
            raise RuntimeError("device-side assert")
        rows = unit(np.array([[len(window), 1.0] for window in windows]))
        for i, window in enumerate(windows):
            if self.nan(window):
                rows[i] = np.nan
        return rows
