"""The only place that chooses what stands behind the ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec

from interest.bundle import LiveModel, ModelBundle
from interest.errors import ServiceUnavailable
from interest.metrics import NoMetrics
from interest.ports import ItemStore, Metrics, Recommender, UserVectorStore
from interest.pseudonyms import Pseudonyms, check_pseudonyms
from interest.settings import Settings
from interest.tls import TlsFiles
from interest_cli.replay import LoadedBundle
from store.aes_sealer import sealer_of
from store.embedded_items import EmbeddedItems
from store.item_cache import ItemCache
from store.qdrant_items import QdrantItems
from store.recommend import StoreRecommender
from store.redis_vectors import RedisUserVectors
from streams.items_feed import ItemsFeed
from streams.kafka_security import kafka_options
from streams.topics import TopicNames
from streams.window_folder import WindowFolder, window_folder
from streams.worker import Worker, check_idle_days
from streams.worker_parts import WorkerPorts

_DAY_MS: Final = 86_400_000


def user_vectors(settings: Settings) -> RedisUserVectors:
    """Connect to the Redis of the settings; nothing is sent before the first call."""
    return RedisUserVectors(
        settings.redis_url,
        prefix=settings.redis_prefix,
        ttl_s=settings.vector_ttl_s,
        forget_key=settings.forget_key,
        marker_ttl_s=int(settings.forget_marker_days * 86_400),
        sealer=sealer_of(settings.encryption_keys),
        tls=TlsFiles(
            "INTEREST_REDIS",
            settings.redis_ca_file,
            settings.redis_cert_file,
            settings.redis_key_file,
        ),
    )


def check_settings(settings: Settings) -> None:
    """Refuse settings of a worker that contradict each other.

    Raises:
        BadInput: one line that says what to change.
    """
    kafka_options(settings)
    check_pseudonyms(settings.pseudonym_key, encrypted=sealer_of(settings.encryption_keys).seals)
    if not settings.bundle:  # a bundle has windows of its own
        check_idle_days(settings.idle_days, settings.window_days)


def collection_of(model_id: str) -> str:
    """Name the collection of a model's items."""
    return f"items-{model_id}"


def live_model_of(bundle: ModelBundle) -> LiveModel:
    """Give what readers need to know of a bundle."""
    return LiveModel(
        model_id=bundle.model_id,
        collection=collection_of(bundle.model_id),
        dim=bundle.dim,
        paths=bundle.config.paths,
    )


def item_store(settings: Settings, live: LiveModel) -> ItemStore:
    """Open the items of a model: on the Qdrant server of the settings, else in process."""
    if settings.qdrant_url:
        return QdrantItems(
            settings.qdrant_url,
            live.collection,
            live.dim,
            api_key=settings.qdrant_api_key,
            grpc_port=settings.qdrant_grpc_port,
        )
    return EmbeddedItems(live.dim)


@asynccontextmanager
async def open_worker(
    settings: Settings, loaded: LoadedBundle, metrics: Metrics
) -> AsyncIterator[tuple[Worker, ItemStore, UserVectorStore]]:
    """Start a worker, and stop it in order when the block ends.

    Raises:
        ServiceUnavailable: the broker or a store does not answer.
        TopicMismatch: the topics on the broker do not fit together.
    """
    bundle = loaded.bundle
    if settings.bundle:
        # Bundles may be trained on windows without end; their users stay as long as they span.
        span_days = bundle.config.window.span_ms / _DAY_MS
        settings = msgspec.structs.replace(settings, idle_days=max(settings.idle_days, span_days))
    live = live_model_of(bundle)
    async with AsyncExitStack() as stack:
        vectors = user_vectors(settings)
        stack.push_async_callback(vectors.close)
        await vectors.ping()
        items = item_store(settings, live)
        stack.push_async_callback(items.close)
        ports = WorkerPorts(
            settings=settings,
            bundle=bundle,
            item_encoder=loaded.item_encoder,
            user_encoder=loaded.user_encoder,
            sparse_encoder=loaded.sparse_encoder,
            vectors=vectors,
            items=items,
            lookup=ItemCache(
                items,
                settings.item_cache_items,
                half=settings.item_cache_half,
                folder=settings.item_cache_folder,
            ),
            metrics=metrics,
            collection=live.collection,
            sealer=sealer_of(settings.encryption_keys),
            window_folder=_window_folder(settings, stack),
        )
        worker = Worker(ports)
        stack.push_async_callback(worker.stop)
        await worker.start()
        yield worker, items, vectors


def _window_folder(settings: Settings, stack: AsyncExitStack) -> WindowFolder | None:
    if settings.window_store == "memory":
        return None
    return stack.enter_context(window_folder(settings.window_folder))


class ItemIndexes:
    """The item stores that readers of live models need, opened when they are first asked for.

    With a Qdrant server a store is a connection. Without one this process builds its own index
    from the ``items-encoded`` topic, and asks for patience until that is read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stores: dict[str, ItemStore] = {}
        self._feeds: dict[str, ItemsFeed] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, live: LiveModel, store: ItemStore) -> None:
        """Use a store that somebody else opens, keeps up to date and closes."""
        self._stores[live.model_id] = store

    def get(self, live: LiveModel) -> ItemStore:
        """Give the store of a model.

        Raises:
            ServiceUnavailable: its index in this process is being built, or has failed.
        """
        name = live.model_id
        store = self._stores.get(name)
        if store is None:
            store = self._stores[name] = item_store(self._settings, live)
            if not store.shared:
                self._follow(live, store)
        task = self._tasks.get(name)
        if task is not None and task.done() and not task.cancelled():
            raise ServiceUnavailable(f"the item index has failed: {task.exception()}")
        feed = self._feeds.get(name)
        if feed is not None and not feed.caught_up.is_set():
            raise ServiceUnavailable(
                f"the item index is being built, {len(feed.known)} items so far"
            )
        return store

    def _follow(self, live: LiveModel, store: ItemStore) -> None:
        topic = TopicNames.of(self._settings).items_encoded
        feed = ItemsFeed(self._settings, topic, live.model_id, store, None, NoMetrics())
        self._feeds[live.model_id] = feed

        async def follow() -> None:
            await store.open()
            await feed.run()

        name = f"index of {live.model_id}"
        self._tasks[live.model_id] = asyncio.create_task(follow(), name=name)

    async def close(self) -> None:
        """Stop following, and close the stores that were opened here."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for store in self._stores.values():
            await store.close()


@asynccontextmanager
async def open_recommender(settings: Settings) -> AsyncIterator[Recommender]:
    """Open the stores for reading."""
    async with AsyncExitStack() as stack:
        vectors = user_vectors(settings)
        stack.push_async_callback(vectors.close)
        indexes = ItemIndexes(settings)
        stack.push_async_callback(indexes.close)
        yield StoreRecommender(
            vectors,
            indexes.get,
            path=None if settings.retrieval_path == "auto" else settings.retrieval_path,
            pseudonym=Pseudonyms(settings.pseudonym_key),
        )


def worker_checks(
    worker: Worker, vectors: UserVectorStore, items: ItemStore
) -> dict[str, Callable[[], Awaitable[None]]]:
    """Say what must work before a worker is ready."""

    async def running() -> None:
        reasons = worker.unready()
        if reasons:
            raise ServiceUnavailable("; ".join(reasons))

    return {"worker": running, "redis": vectors.ping, "items": items.ping}
