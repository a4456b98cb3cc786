"""The gRPC path to Qdrant, against a stand-in that keeps points and speaks the real protocol."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from qdrant_client import grpc as pb

from interest.errors import ServiceUnavailable
from interest.item import EncodedItem, Item, ItemFilter, ItemQuery
from store.points import point_id
from store.qdrant_items import QdrantItems

ITEM = Item(item_id="货 1", title="t", price=5.0, categories=("a", "b"), available=False)
VECTOR = np.array([0.6, 0.8, 0.0], np.float32)


class Points(pb.PointsServicer):
    """Answers with whatever was upserted last; or refuses with a status."""

    def __init__(self) -> None:
        self.points: list[Any] = []
        self.asked: list[Any] = []
        self.refusal: grpc.StatusCode | None = None

    async def _enter(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        if self.refusal is not None:
            await context.abort(self.refusal, "because")

    async def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._enter(request, context)
        self.points.extend(request.points)
        return pb.PointsOperationResponse(
            result=pb.UpdateResult(operation_id=1, status=pb.UpdateStatus.Completed)
        )

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._enter(request, context)
        vectors = pb.VectorsOutput(vector=pb.VectorOutput(dense=pb.DenseVector(data=VECTOR)))
        return pb.GetResponse(
            result=[
                pb.RetrievedPoint(id=p.id, payload=p.payload, vectors=vectors) for p in self.points
            ]
        )

    async def QueryBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._enter(request, context)
        found = [pb.ScoredPoint(id=p.id, payload=p.payload, score=0.5) for p in self.points]
        return pb.QueryBatchResponse(
            result=[pb.BatchResult(result=found) for _ in request.query_points]
        )


@pytest.fixture
async def server() -> AsyncIterator[tuple[Points, int]]:
    points, made = Points(), grpc.aio.server()
    pb.add_PointsServicer_to_server(points, made)  # type: ignore[no-untyped-call]
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    yield points, port
    await made.stop(None)


@pytest.fixture
async def store(server: tuple[Points, int]) -> AsyncIterator[QdrantItems]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        made = QdrantItems("http://127.0.0.1:1", "c", 3, api_key="k3y", grpc_port=server[1])
    yield made
    await made.close()


async def test_items_go_there_and_come_back_whole(
    server: tuple[Points, int], store: QdrantItems
) -> None:
    await store.upsert([EncodedItem(item=ITEM, vector=VECTOR)])
    assert server[0].asked[0].wait
    found = await store.fetch([ITEM.item_id])
    assert found[ITEM.item_id].item == ITEM
    assert np.array_equal(found[ITEM.item_id].vector, VECTOR)


async def test_a_search_carries_filter_and_excluded_ids(
    server: tuple[Points, int], store: QdrantItems
) -> None:
    await store.upsert([EncodedItem(item=ITEM, vector=VECTOR)])
    query = ItemQuery(
        vectors=np.eye(3, dtype=np.float32)[:2],
        k=7,
        exclude=frozenset({"seen"}),
        filter=ItemFilter(category="a", min_price=1.0),
    )
    [scored] = await store.search(query)
    assert (scored.item, scored.score) == (ITEM, 0.5)
    batch = server[0].asked[-1]
    assert [p.limit for p in batch.query_points] == [8, 8], "one query for each interest"
    asked = batch.query_points[0].filter
    [excluded] = asked.must_not[0].has_id.has_id
    assert excluded.uuid == point_id("seen")
    conditions = {c.field.key: c.field for c in asked.must}
    assert conditions.keys() == {"categories", "price", "availability"}
    assert conditions["categories"].match.keyword == "a"
    assert conditions["price"].range.gte == 1.0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "INTEREST_QDRANT_API_KEY"),
        (grpc.StatusCode.PERMISSION_DENIED, "INTEREST_QDRANT_API_KEY"),
        (grpc.StatusCode.NOT_FOUND, "NOT_FOUND: because"),
    ],
)
async def test_a_refusal_is_one_clear_line(
    server: tuple[Points, int], store: QdrantItems, status: grpc.StatusCode, said: str
) -> None:
    server[0].refusal = status
    with pytest.raises(ServiceUnavailable, match=said) as caught:
        await store.search(ItemQuery(vectors=VECTOR[np.newaxis]))
    assert "\n" not in str(caught.value)
    assert "k3y" not in str(caught.value)


async def test_a_port_where_nobody_listens_is_one_clear_line() -> None:
    store = QdrantItems("http://127.0.0.1:1", "c", 3, grpc_port=1)
    for call in (store.ping(), store.open(), store.fetch(["a"])):
        with pytest.raises(ServiceUnavailable, match="UNAVAILABLE") as caught:
            await call
        assert "\n" not in str(caught.value)
    await store.close()


async def test_a_bulk_load_is_cut_below_the_limit_of_a_request(
    server: tuple[Points, int], store: QdrantItems
) -> None:
    """A server refuses 32 MiB, and would refuse the same request for ever."""
    large = "x" * 65_536
    items = [
        EncodedItem(item=Item(item_id=f"i{n}", title="t", description=large), vector=VECTOR)
        for n in range(100)
    ]
    small = [EncodedItem(item=Item(item_id=f"s{n}", title="t"), vector=VECTOR) for n in range(600)]
    await store.upsert(items + small)
    requests = server[0].asked
    assert max(len(request.points) for request in requests) <= 256
    assert max(request.ByteSize() for request in requests) < 16 * 2**20
    sent = [point.id.uuid for request in requests for point in request.points]
    assert sent == [point_id(e.item.item_id) for e in items + small]
