"""What a running installation recommends on each path is what the evaluation ranks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

from encoder.bundle_folder import save_bundle_folder
from encoder.factory import Encoders, load_encoders, load_text_model
from encoder.items import TextItemEncoder
from encoder.sparse_fit import described, fit_sparse
from encoder.zero_shot_bundle import zero_shot_parts
from interest.bundle import BundleConfig, ModelBundle, PathWeights, RetrievalPath, RetrievalPaths
from interest.encoded_items import EncodedItems
from interest.event import Event, decode_event
from interest.item import Item
from interest.metrics import NoMetrics
from interest.settings import Settings
from interest.window import WindowLimits
from interest_cli.path_ranker import PathRanker
from interest_cli.replay import LoadedBundle, fold_log
from interest_cli.wiring import open_worker
from store.recommend import StoreRecommender
from streams.topics import ensure_topics
from tests.conftest import Servers
from tests.stream.conftest import T0, Harness, event, item
from tests.stream.test_worker import publish

COLOURS, THINGS = ("red", "blue", "green", "black"), ("mug", "cup", "lamp", "chair", "bowl")
ITEMS = [
    Item(item_id=f"{colour}-{thing}", title=f"A {colour} {thing}")
    for colour in COLOURS
    for thing in THINGS
]
MINUTE_MS = 60_000
PATHS: tuple[RetrievalPath, ...] = ("dense", "hybrid", "rerank")


def a_log() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(1)
    log = [
        (user, event(f"{user}-{i}", user, ITEMS[int(rng.integers(len(ITEMS)))].item_id,
                     ts=T0 + i * MINUTE_MS, type=str(rng.choice(["view", "click", "purchase"]))))
        for user, n in (("short", 1), ("long", 60), ("usual", 7), ("other", 4))
        for i in range(n)
    ]  # fmt: skip
    log.append(("usual", event("back", "usual", "red-mug", ts=T0 + 10 * MINUTE_MS, type="return")))
    search = {"event_id": "s", "user_id": "short", "type": "search", "text": "green lamp", "ts": T0}
    return [*log, ("short", msgspec.json.encode(search))]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    """A bundle with every part that a path reads, and weights that set the paths apart."""
    model = load_text_model(Settings())
    vectors = TextItemEncoder(model).encode_items(ITEMS)
    parts = zero_shot_parts(ITEMS, vectors, model.described, WindowLimits())
    rng = np.random.default_rng(0)
    sparse = fit_sparse(ITEMS, np.repeat(np.arange(40), 3), rng.integers(len(ITEMS), size=120))
    config: BundleConfig = msgspec.structs.replace(
        parts.bundle.config,
        sparse=described(sparse, terms_decay=0.7, links_decay=0.9),
        paths=RetrievalPaths(
            hybrid=PathWeights(terms=0.6, links=8.0),
            rerank=PathWeights(terms=0.2, links=3.0, last=-0.7),
        ),
    )
    folder: Path = tmp_path_factory.mktemp("bundles") / "shop"
    save_bundle_folder(folder, parts._replace(bundle=ModelBundle(config=config), sparse=sparse))
    return load_encoders(Settings(bundle=str(folder)))


async def test_live_recommendations_are_those_of_the_evaluation_on_every_path(
    servers: Servers, encoders: Encoders
) -> None:
    loaded = LoadedBundle(encoders.bundle, encoders.items, encoders.users, encoders.sparse)
    harness = Harness(servers, loaded)
    await ensure_topics(harness.settings)
    log = a_log()
    catalogue = [(one.item_id, item(one.item_id, one.title)) for one in ITEMS]
    await publish(harness, "catalogue", *catalogue)
    await publish(harness, "behaviours", *log)
    live: dict[tuple[str, RetrievalPath], list[tuple[str, float]]] = {}
    async with open_worker(harness.settings, loaded, NoMetrics()) as (worker, items, vectors):
        await harness.idle(worker)
        recommender = StoreRecommender(vectors, lambda _: items)
        for user in ("short", "long", "usual", "other"):
            for path in PATHS:
                found = await recommender.recommend(user, 8, path=path)
                assert found.basis == "vector"
                live[user, path] = [(each.item.item_id, each.score) for each in found.items]
    await harness.vectors.close()
    # On a thread, as it runs a loop of its own.
    expected = await asyncio.to_thread(evaluated, encoders, [decode_event(raw) for _, raw in log])
    for (user, path), found_live in live.items():
        best = expected[user, path]
        assert [item_id for item_id, _ in found_live] == [item_id for item_id, _ in best]
        assert [score for _, score in found_live] == pytest.approx(
            [score for _, score in best], abs=1e-5
        )
    lists = {path: tuple(item_id for item_id, _ in live["usual", path]) for path in PATHS}
    assert len(set(lists.values())) == 3, "the paths tell users apart"


def evaluated(
    encoders: Encoders, events: list[Event]
) -> dict[tuple[str, RetrievalPath], list[tuple[str, float]]]:
    windows = fold_log(events, encoders.bundle.config.window)
    known = EncodedItems(ITEMS, encoders.items.encode_items(ITEMS))
    row_of = {one.item_id: row for row, one in enumerate(ITEMS)}
    found: dict[tuple[str, RetrievalPath], list[tuple[str, float]]] = {}
    for path in PATHS:
        with PathRanker(encoders, known, row_of, path=path, n_best=8) as ranker:
            for user, best in zip(windows, ranker.best(list(windows.values())), strict=True):
                found[user, path] = [(each.item.item_id, each.score) for each in best]
    return found
