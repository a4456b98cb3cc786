"""Stand-ins behind the worker's ports, so that a benchmark measures the stream and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from interest.bundle import BundleConfig, LiveModel, ModelBundle, TextModel
from interest.forgetting import Marker
from interest.item import EncodedItem, Item, ItemQuery, ScoredItem
from interest.metrics import NoMetrics
from interest.ports import LiveUser, UserState, VectorUpdate
from interest.settings import Settings
from interest.vector import Token, VectorHead
from interest.window import BehaviourWindow
from interest_cli.interpreter import loop_factory, tune_interpreter
from store.item_cache import ItemCache
from streams.worker import Worker
from streams.worker_parts import WorkerPorts

T = TypeVar("T")

_DIM: Final = 8


def bundle() -> ModelBundle:
    """Give a bundle without a model."""
    text_model = TextModel(reference="", fingerprint="stub", dim=_DIM)
    return ModelBundle(config=BundleConfig(user_encoder="decay", text_model=text_model))


def settings_of(bootstrap: str, prefix: str, n_partitions: int) -> Settings:
    """Give the settings of one installation of a benchmark.

    A worker that has just started holds its vectors back until it has caught up. Here it does not:
    what is measured is the steady state, in which vectors are made all the time.
    """
    return Settings(
        kafka_bootstrap=bootstrap,
        topic_prefix=prefix,
        group_id=f"{prefix}workers",
        partitions=n_partitions,
        session_timeout_s=6.0,
        catch_up_s=0.0,
    )


class StubEncoder:
    """The ports ``ItemEncoder`` and ``UserEncoder``: one vector for all."""

    dim = _DIM

    def n_tokens(self, window: BehaviourWindow) -> int:
        """What the encoder of the default bundle says: an event is a token."""
        return len(window)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        """Give (B, D)."""
        return self._rows(len(windows))

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Give (N, D)."""
        return self._rows(len(items))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give (N, D)."""
        return self._rows(len(texts))

    def _rows(self, n: int) -> NDArray[np.float32]:
        return np.full((n, _DIM), _DIM**-0.5, np.float32)


class AcceptingVectors:
    """The port ``UserVectorStore``: accepts every vector, keeps none.

    Args:
        head: the token of every user's vector, for reconciling.
    """

    def __init__(self, head: Token) -> None:
        self._head = head
        self.n_upserts = 0
        #: Set once this user is upserted.
        self.watched = ""
        self.seen = asyncio.Event()

    async def ping(self) -> None:
        """It is there."""

    async def upsert(self, updates: Sequence[VectorUpdate]) -> list[Token | Marker | None]:
        """Count."""
        self.n_upserts += len(updates)
        if self.watched and any(update.vector.user_id == self.watched for update in updates):
            self.seen.set()
        return [None] * len(updates)

    async def forget(self, user_id: str, marker: Marker) -> Marker:
        """Nothing is kept."""
        return msgspec.structs.replace(marker, place=1)

    async def restore_markers(self, markers: Sequence[Marker]) -> int:
        """Nothing is kept."""
        return 0

    async def epoch(self) -> str:
        """It never restarts."""
        return "stub"

    async def fetch(self, user_ids: Sequence[str], model_id: str) -> list[UserState | None]:
        """Nothing is kept."""
        return [None] * len(user_ids)

    async def fetch_live(self, user_id: str, *, recent: bool) -> LiveUser:
        """Nothing is kept."""
        return LiveUser(None, None)

    async def fetch_heads(self, user_ids: Sequence[str], model_id: str) -> list[VectorHead | None]:
        """Every vector is as new as its window was in the changelog."""
        head = VectorHead(self._head, int(time.time() * 1000))
        return [head] * len(user_ids)

    async def live_model(self) -> LiveModel | None:
        """None is set."""
        return None

    async def set_live_model(self, live: LiveModel) -> None:
        """Nothing reads it."""

    async def publish_popular(self, partition: int, scores: Mapping[str, float]) -> None:
        """Nothing reads it."""

    async def fetch_popular(self, k: int) -> list[tuple[str, float]]:
        """There are none."""
        return []

    async def close(self) -> None:
        """Nothing is open."""


class DictItems:
    """The port ``ItemStore`` over a dictionary; nothing is searched here."""

    shared: Final = False

    def __init__(self) -> None:
        self._items: dict[str, EncodedItem] = {}

    async def open(self) -> None:
        """It is."""

    async def ping(self) -> None:
        """It is there."""

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        """Keep them."""
        self._items.update((encoded.item.item_id, encoded) for encoded in items)

    async def remove(self, item_ids: Sequence[str]) -> None:
        """Drop them."""
        for item_id in item_ids:
            self._items.pop(item_id, None)

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        """Read by id."""
        return {i: self._items[i] for i in item_ids if i in self._items}

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Find nothing."""
        return []

    async def count(self) -> int:
        """Count them."""
        return len(self._items)

    async def close(self) -> None:
        """Nothing is open."""


def stub_worker(settings: Settings, model: ModelBundle) -> tuple[Worker, AcceptingVectors]:
    """Build a worker over the broker of the settings; everything else is a stub."""
    vectors = AcceptingVectors(Token(0, 0, model.config.window.max_events))
    items, encoder = DictItems(), StubEncoder()
    ports = WorkerPorts(
        settings=settings,
        bundle=model,
        item_encoder=encoder,
        user_encoder=encoder,
        vectors=vectors,
        items=items,
        lookup=ItemCache(items, settings.item_cache_items, half=settings.item_cache_half),
        metrics=NoMetrics(),
        collection="stub",
    )
    worker = Worker(ports)
    return worker, vectors


def run_as_worker(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as ``interest worker`` does: on its loop, in an interpreter that is tuned."""
    tune_interpreter()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(job)
