"""The port ``ItemStore``: the engine in process, the client's stand-in, and a real server."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from interest.errors import BadInput, ServiceUnavailable
from interest.item import EncodedItem, Item, ItemFilter, ItemQuery, unit
from interest.ports import ItemStore
from interest.sparse import LINKS_FROM, SparseVector, dots
from store.embedded_items import EmbeddedItems
from store.matching import best_scores, matches
from store.qdrant_items import QdrantItems

# The client's stand-in says that it has no payload indexes; the server has.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]

DIM = 8
RNG = np.random.default_rng(7)
VECTORS = unit(RNG.normal(size=(60, DIM)))


def sparse(numbers: dict[int, float]) -> SparseVector:
    dims = sorted(numbers)
    return SparseVector(
        np.array(dims, np.uint32), np.array([numbers[dim] for dim in dims], np.float32)
    )


#: Every sixth item has none; terms are common, links are not.
SPARSE = [
    sparse(
        {int(d): float(RNG.normal()) for d in RNG.choice(30, i % 6, replace=False)}
        | ({LINKS_FROM + i: 0.5, LINKS_FROM + (7 * i) % 60: -0.25} if i % 6 else {})
    )
    for i in range(60)
]
ITEMS = [
    EncodedItem(
        item=Item(
            item_id=f"item/{i} 货",
            title=f"Title {i}",
            description="text" if i % 2 else "",
            brand=("red", "blue", None)[i % 3],
            categories=tuple(c for c, step in (("a", 2), ("b", 5)) if i % step == 0),
            price=None if i % 7 == 0 else float(i),
            domain="shop" if i % 4 else "books",
            available=i % 10 != 3,
        ),
        vector=VECTORS[i],
        sparse=SPARSE[i],
    )
    for i in range(60)
]


@pytest.fixture(params=["embedded", "client", "server", "server over gRPC"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ItemStore]:
    made: ItemStore
    client: AsyncQdrantClient | None = None
    collection = f"test-{uuid.uuid4().hex}"
    if request.param == "embedded":
        made = EmbeddedItems(DIM)
    elif request.param == "client":
        # The client's own stand-in for a server: the same calls, computed in Python.
        made = QdrantItems("memory", collection, DIM, client=AsyncQdrantClient(":memory:"))
    else:
        url = os.environ.get("QDRANT_URL")
        if not url:
            pytest.skip("no Qdrant server: set QDRANT_URL")
        key = os.environ.get("QDRANT_API_KEY", "")
        client = AsyncQdrantClient(url, api_key=key or None)
        grpc_port = 0
        if request.param == "server over gRPC":
            if "QDRANT_GRPC_PORT" not in os.environ:
                pytest.skip("no gRPC port of a Qdrant server: set QDRANT_GRPC_PORT")
            grpc_port = int(os.environ["QDRANT_GRPC_PORT"])
        made = QdrantItems(url, collection, DIM, api_key=key, grpc_port=grpc_port)
    await made.open()
    await made.upsert(ITEMS)
    yield made
    if client is not None:
        await client.delete_collection(collection)
        await client.close()
    await made.close()


def query(row: int = 0, **fields: object) -> ItemQuery:
    vectors = VECTORS[row : row + 1] * 0.6 + VECTORS[row + 1 : row + 2] * 0.4
    return ItemQuery(**{"vectors": vectors, "k": 10, **fields})  # type: ignore[arg-type]


def expected(asked: ItemQuery) -> list[tuple[str, float]]:
    """The exhaustive answer."""
    scores = best_scores(asked.vectors, VECTORS)
    scores = scores + dots(asked.sparse, SPARSE)
    kept = [
        (e.item.item_id, float(scores[i]))
        for i, e in enumerate(ITEMS)
        if matches(e.item, asked.filter) and e.item.item_id not in asked.exclude
    ]
    return sorted(kept, key=lambda entry: (-entry[1], entry[0]))[: asked.k]


FILTERS = [
    ItemFilter(),
    ItemFilter(only_available=False),
    ItemFilter(category="a"),
    ItemFilter(category="b", brand="red"),
    ItemFilter(brand="blue", domain="books"),
    ItemFilter(min_price=10, max_price=30),
    ItemFilter(max_price=5),
    ItemFilter(category="nothing"),
]


@pytest.mark.parametrize("where", FILTERS)
async def test_search_gives_the_exhaustive_answer_under_every_filter(
    store: ItemStore, where: ItemFilter
) -> None:
    asked = query(filter=where)
    found = await store.search(asked)
    assert [s.item.item_id for s in found] == [item_id for item_id, _ in expected(asked)]
    assert [s.score for s in found] == pytest.approx([s for _, s in expected(asked)], abs=1e-5)


async def test_items_come_back_whole(store: ItemStore) -> None:
    wanted = [ITEMS[3].item.item_id, "unknown", ITEMS[14].item.item_id]
    found = await store.fetch(wanted)
    assert {i: e.item for i, e in found.items()} == {
        ITEMS[3].item.item_id: ITEMS[3].item,
        ITEMS[14].item.item_id: ITEMS[14].item,
    }
    assert np.allclose(found[ITEMS[3].item.item_id].vector, VECTORS[3], atol=1e-6)
    for i in (3, 14):
        held = found[ITEMS[i].item.item_id].sparse
        assert held.dims.tolist() == SPARSE[i].dims.tolist()
        assert held.values == pytest.approx(SPARSE[i].values)
    assert not (await store.fetch([ITEMS[6].item.item_id]))[ITEMS[6].item.item_id].sparse.n
    assert await store.fetch([]) == {}
    assert await store.count() == len(ITEMS)


async def test_excluded_items_are_never_found(store: ItemStore) -> None:
    everything = await store.search(query(k=100))
    exclude = frozenset(s.item.item_id for s in everything[:20])
    asked = query(k=100, exclude=exclude)
    found = await store.search(asked)
    assert [s.item.item_id for s in found] == [item_id for item_id, _ in expected(asked)]
    assert len(found) == len(everything) - 20


async def test_of_several_interests_the_maximum_counts(store: ItemStore) -> None:
    # Of different length, so that no two items tie at the top.
    weights = np.array([[1.0], [0.9], [0.8]], np.float32)
    asked = ItemQuery(vectors=VECTORS[[2, 40, 51]] * weights, k=12)
    found = await store.search(asked)
    assert [s.item.item_id for s in found] == [item_id for item_id, _ in expected(asked)]
    assert len({s.item.item_id for s in found}) == 12


SPARSE_QUERIES = [
    sparse({0: 1.5, 3: -0.5, 7: 1.0, LINKS_FROM + 14: 2.0}),
    sparse({LINKS_FROM + 21: 3.0}),
    sparse({999: 1.0}),
    sparse(dict.fromkeys(range(30), 1.0)),
]


@pytest.mark.parametrize("asked_sparse", SPARSE_QUERIES)
@pytest.mark.parametrize("where", FILTERS[:4])
async def test_a_sparse_query_is_added_to_the_dense_one(
    store: ItemStore, asked_sparse: SparseVector, where: ItemFilter
) -> None:
    for rows in ([2], [2, 40, 51]):
        asked = ItemQuery(vectors=VECTORS[rows], sparse=asked_sparse, k=12, filter=where,
                          exclude=frozenset({ITEMS[8].item.item_id}))  # fmt: skip
        found = await store.search(asked)
        assert [s.item.item_id for s in found] == [item_id for item_id, _ in expected(asked)]
        assert [s.score for s in found] == pytest.approx([s for _, s in expected(asked)], abs=1e-5)


async def test_an_item_that_is_changed_is_found_by_its_new_sparse_vector(store: ItemStore) -> None:
    changed = EncodedItem(item=ITEMS[0].item, vector=VECTORS[0], sparse=sparse({500: 4.0}))
    await store.upsert([changed, EncodedItem(item=ITEMS[1].item, vector=VECTORS[1])])
    [best] = await store.search(ItemQuery(vectors=VECTORS[:1], sparse=sparse({500: 1.0}), k=1))
    assert best.item.item_id == ITEMS[0].item.item_id
    assert best.score == pytest.approx(5.0)
    found = await store.fetch([ITEMS[1].item.item_id])
    assert not found[ITEMS[1].item.item_id].sparse.n


async def test_a_sparse_vector_that_would_poison_the_engine_is_refused(store: ItemStore) -> None:
    for bad in (sparse({1: float("nan")}), SparseVector(*sparse({1: 1.0, 2: 1.0}))._replace(
        dims=np.array([2, 1], np.uint32))):  # fmt: skip
        with pytest.raises(BadInput, match="sparse"):
            await store.upsert([EncodedItem(item=ITEMS[1].item, vector=VECTORS[1], sparse=bad)])
        with pytest.raises(BadInput, match="sparse"):
            ItemQuery(vectors=VECTORS[:1], sparse=bad)


async def test_an_upsert_replaces_and_a_removal_removes(store: ItemStore) -> None:
    changed = EncodedItem(item=Item(item_id=ITEMS[0].item.item_id, title="New"), vector=VECTORS[9])
    await store.upsert([changed])
    found = await store.fetch([ITEMS[0].item.item_id])
    assert found[ITEMS[0].item.item_id].item == changed.item
    await store.remove([ITEMS[0].item.item_id, "unknown"])
    assert await store.fetch([ITEMS[0].item.item_id]) == {}
    assert await store.count() == len(ITEMS) - 1


async def test_searches_and_writes_go_on_side_by_side(store: ItemStore) -> None:
    wanted = {item_id for item_id, _ in expected(query())}
    writes = [store.upsert([e]) for e in ITEMS * 3]
    reads = [store.search(query()) for _ in range(60)]
    answers = await asyncio.gather(*reads, *writes)
    for answer in answers[: len(reads)]:
        assert answer is not None
        assert {s.item.item_id for s in answer} == wanted
    assert await store.count() == len(ITEMS)


async def test_the_item_id_decides_a_tie_also_where_the_answer_is_cut(store: ItemStore) -> None:
    """Items of one title have one vector; an engine cuts among them as it likes."""
    best = unit(query().vectors[0])
    order = np.random.default_rng(0).permutation(90)
    same = [EncodedItem(item=Item(item_id=f"same {i:02}", title="t"), vector=best) for i in order]
    await store.upsert(same)
    for n_interests in (1, 2):
        vectors = np.concatenate([best[np.newaxis], VECTORS[40:41] * 0.1])[:n_interests]
        found = await store.search(ItemQuery(vectors=vectors, k=7))
        assert [s.item.item_id for s in found] == [f"same {i:02}" for i in range(7)]


async def test_an_id_that_is_no_unicode_is_refused(store: ItemStore) -> None:
    """What a shell gives a command may hold any bytes."""
    with pytest.raises(BadInput, match="Unicode"):
        await store.fetch(["\udcff"])


async def test_opening_again_changes_nothing(store: ItemStore) -> None:
    await store.open()
    await store.ping()
    assert await store.count() == len(ITEMS)


@pytest.mark.parametrize(
    "vector",
    [np.zeros(DIM), np.full(DIM, np.nan), np.full(DIM, np.inf), np.ones(DIM + 1)],
    ids=["zero", "nan", "infinite", "long"],
)
async def test_vectors_that_would_poison_the_engine_are_refused(
    store: ItemStore, vector: np.ndarray
) -> None:
    bad = EncodedItem(item=Item(item_id="bad", title="t"), vector=vector.astype(np.float32))
    with pytest.raises(BadInput, match="bad"):
        await store.upsert([ITEMS[1], bad])
    assert await store.fetch(["bad"]) == {}


async def test_a_query_of_another_length_is_refused(store: ItemStore) -> None:
    with pytest.raises(BadInput, match="dimensions"):
        await store.search(ItemQuery(vectors=np.ones((1, DIM + 1), np.float32)))


async def test_the_worked_example_of_the_ranking() -> None:
    """User vector [.5, .3, .8], three one-hot items: scores .5, .3, .8, item 3 first."""
    store = EmbeddedItems(3)
    await store.open()
    one_hot = np.eye(3, dtype=np.float32)
    await store.upsert(
        [
            EncodedItem(item=Item(item_id=f"item {i + 1}", title="t"), vector=one_hot[i])
            for i in range(3)
        ]
    )
    user = np.array([[0.5, 0.3, 0.8]], np.float32)
    found = await store.search(ItemQuery(vectors=user, k=3))
    assert [s.item.item_id for s in found] == ["item 3", "item 1", "item 2"]
    assert [s.score for s in found] == pytest.approx([0.8, 0.5, 0.3])
    unseen = await store.search(ItemQuery(vectors=user, k=3, exclude=frozenset({"item 3"})))
    assert [s.item.item_id for s in unseen] == ["item 1", "item 2"]
    await store.close()


async def test_a_collection_of_another_model_is_refused() -> None:
    client = AsyncQdrantClient(":memory:")
    await QdrantItems("memory", "c", 4, client=client).open()
    with pytest.raises(BadInput, match="4 dimensions"):
        await QdrantItems("memory", "c", 8, client=client).open()


async def test_a_server_that_is_away_is_one_clear_line() -> None:
    store = QdrantItems("http://127.0.0.1:1", "c", DIM)
    for call in (store.ping(), store.open(), store.search(query()), store.upsert(ITEMS[:1])):
        with pytest.raises(ServiceUnavailable, match=r"Qdrant at http://127\.0\.0\.1:1"):
            await call
    await store.close()


@pytest.mark.parametrize("url", ["ftp://x", "http://:s3cret@h:port", "two words"])
def test_a_url_that_is_none_is_refused_and_does_not_show_its_password(url: str) -> None:
    with pytest.raises(BadInput, match="INTEREST_QDRANT_URL") as caught:
        QdrantItems(url, "c", DIM)
    assert "s3cret" not in str(caught.value)


async def test_a_password_in_the_url_is_not_shown() -> None:
    store = QdrantItems("http://me:s3cret@127.0.0.1:1", "c", DIM)
    with pytest.raises(ServiceUnavailable, match=r"at http://127\.0\.0\.1:1") as caught:
        await store.ping()
    assert "s3cret" not in str(caught.value)
    await store.close()


async def test_an_engine_is_opened_once_however_many_ask() -> None:
    store = EmbeddedItems(DIM)
    await asyncio.gather(*(store.open() for _ in range(3)))
    await store.upsert(ITEMS)
    assert await store.count() == len(ITEMS)
    await store.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        await store.open()


async def test_an_engine_that_is_not_open_says_so() -> None:
    with pytest.raises(ServiceUnavailable, match="not open"):
        await EmbeddedItems(DIM).search(query())


async def test_a_closed_engine_says_so() -> None:
    store = EmbeddedItems(DIM)
    await store.open()
    await store.upsert(ITEMS)
    begun = asyncio.create_task(store.search(query()))
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert len(await begun) == 10, "what has begun is answered"
    for call in (store.search(query()), store.upsert(ITEMS), store.fetch(["i"]), store.ping()):
        with pytest.raises(ServiceUnavailable, match="item index is closed"):
            await call


async def test_without_the_extra_the_engine_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "numkong", None)
    store = EmbeddedItems(DIM)
    with pytest.raises(ServiceUnavailable, match=r"interest-updater\[embedded\]"):
        await store.open()
    await store.close()
