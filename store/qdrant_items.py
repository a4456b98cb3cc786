"""Items on a Qdrant server: one collection per model. Layout: ``docs/contracts.md``."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import numpy as np
from grpc import RpcError, StatusCode
from grpc.aio import AioRpcError
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as q
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from interest.errors import BadInput, ServiceUnavailable
from interest.item import EncodedItem, ItemFilter, ItemQuery, ScoredItem
from interest.sparse import EMPTY, SparseVector
from store.points import (
    AVAILABLE,
    INDEXED,
    check_vectors,
    item_of,
    merge,
    next_limit,
    payload_of,
    point_id,
)

_BATCH: Final = 256
#: A server refuses a request of more than 32 MiB, and would for ever.
_BATCH_BYTES: Final = 16 * 2**20
_TIMEOUT_S: Final = 10
#: Names of the vectors of a point.
_DENSE: Final = ""
_SPARSE: Final = "sparse"
#: Candidates of each side of a fused query, at least.
_CANDIDATES: Final = 500


class QdrantItems:
    """The port ``ItemStore`` over one collection that all processes share.

    Args:
        url: of the server's HTTP port.
        grpc_port: every call goes there (about a third faster); 0 uses HTTP.
        client: for tests, instead of a connection to ``url``.

    Raises:
        BadInput: the URL is none.
    """

    shared: Final = True

    def __init__(
        self,
        url: str,
        collection: str,
        dim: int,
        *,
        api_key: str = "",
        grpc_port: int = 0,
        client: AsyncQdrantClient | None = None,
    ) -> None:
        # Shown in errors: without a user and password that may stand in it.
        self._url = re.sub(r"//[^/]*@", "//", url)
        self._collection = collection
        self._dim = dim
        try:
            self._client = client or AsyncQdrantClient(
                url,
                api_key=api_key or None,
                timeout=_TIMEOUT_S,
                prefer_grpc=bool(grpc_port),
                grpc_port=grpc_port or 6334,
                check_compatibility=False,  # it would print a warning where a server is away
            )
        except ValueError:
            # Not the parser's words (nor its traceback): a password may be in them.
            raise BadInput("INTEREST_QDRANT_URL is no URL: http://host:6333 or https://") from None

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (
            ApiException, QdrantException, RpcError, httpx.HTTPError, OSError, TimeoutError,
        ) as error:  # fmt: skip
            hint = "; see INTEREST_QDRANT_API_KEY" if _is_refused(error) else ""
            raise ServiceUnavailable(
                f"Qdrant at {self._url}, collection {self._collection}: {_in_a_line(error)}{hint}"
            ) from error
        except ValueError as error:
            # The client's local mode, and its own checks, raise this for a missing collection.
            raise ServiceUnavailable(
                f"Qdrant at {self._url}, collection {self._collection}: {error}"
            ) from error

    async def open(self) -> None:
        """Create collection and payload indexes where they are missing.

        Raises:
            BadInput: the collection exists with another dimension.
        """
        async with self._translated():
            if not await self._client.collection_exists(self._collection):
                await self._create()
            info = await self._client.get_collection(self._collection)
        params = info.config.params.vectors
        size = params.size if isinstance(params, q.VectorParams) else None
        if size != self._dim:
            raise BadInput(
                f"Qdrant collection {self._collection} has {size} dimensions, "
                f"the model has {self._dim}; another model wrote it"
            )
        async with self._translated():
            for field, kind in INDEXED.items():
                if field not in info.payload_schema:
                    await self._client.create_payload_index(
                        self._collection, field, q.PayloadSchemaType(kind), wait=True
                    )

    async def _create(self) -> None:
        try:
            await self._client.create_collection(
                self._collection,
                vectors_config=q.VectorParams(size=self._dim, distance=q.Distance.DOT),
                sparse_vectors_config={_SPARSE: q.SparseVectorParams()},
            )
        except (ApiException, RpcError):
            # Two workers may start at once; the other's collection is as good as ours.
            if not await self._client.collection_exists(self._collection):
                raise

    async def ping(self) -> None:
        """Return if the server answers and has the collection."""
        async with self._translated():
            if not await self._client.collection_exists(self._collection):
                raise ServiceUnavailable(
                    f"Qdrant at {self._url} has no collection {self._collection} yet"
                )

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        """Add or replace items; durable when it returns.

        Raises:
            BadInput: a vector of another length, zero, or with NaN or infinity; nothing is stored.
        """
        check_vectors(items, self._dim)
        async with self._translated():
            for batch in _batches(items):
                points = [
                    q.PointStruct(
                        id=point_id(encoded.item.item_id),
                        vector=_vectors_of(encoded),
                        payload=payload_of(encoded.item),
                    )
                    for encoded in batch
                ]
                await self._client.upsert(self._collection, points, wait=True)

    async def remove(self, item_ids: Sequence[str]) -> None:
        """Remove items; unknown ids are fine."""
        ids: list[Any] = [point_id(item_id) for item_id in item_ids]
        async with self._translated():
            await self._client.delete(self._collection, q.PointIdsList(points=ids), wait=True)

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        """Read items by id; unknown ids are left out."""
        found: dict[str, EncodedItem] = {}
        for first in range(0, len(item_ids), _BATCH):
            ids = [point_id(item_id) for item_id in item_ids[first : first + _BATCH]]
            async with self._translated():
                records = await self._client.retrieve(
                    self._collection, ids, with_payload=True, with_vectors=True
                )
            for record in records:
                encoded = _encoded(record)
                found[encoded.item.item_id] = encoded
        return found

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Find the nearest items, best first, ties by item id.

        With a sparse query the best 500 of each side (more for a greater ``k``) are scored by
        both. An item beyond both lists has less than the last scores of the two together.

        Raises:
            BadInput: the query's vectors have another length.
        """
        if query.vectors.shape[1] != self._dim:
            raise BadInput(f"query of {query.vectors.shape[1]} dimensions, expected {self._dim}")
        where = _filter(query.filter, query.exclude)
        limit: int | None = query.k + 1
        while limit is not None:
            requests = [
                _request(vector.tolist(), query.sparse, limit, where) for vector in query.vectors
            ]
            async with self._translated():
                answers = await self._client.query_batch_points(self._collection, requests)
            limit = next_limit(
                ([p.score for p in answer.points] for answer in answers), limit, query.k
            )
        return merge(
            ([(item_of(p.payload), p.score) for p in answer.points] for answer in answers), query
        )

    async def count(self) -> int:
        """Count the items."""
        async with self._translated():
            return (await self._client.count(self._collection, exact=True)).count

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()


def _request(
    vector: list[float], sparse: SparseVector, limit: int, where: q.Filter
) -> q.QueryRequest:
    if not sparse.n:
        return q.QueryRequest(query=vector, limit=limit, filter=where, with_payload=True)
    terms = _sparse_model(sparse)
    n = max(_CANDIDATES, 2 * limit)
    either = [
        q.Prefetch(query=vector, limit=n, filter=where),
        q.Prefetch(query=terms, using=_SPARSE, limit=n, filter=where),
    ]
    # What either side finds is scored by both: a missing score would count as 0, and a cosine that
    # did not reach the list is not 0. A point without any of the dimensions has no sparse score.
    scored = [
        q.Prefetch(prefetch=either, query=vector, limit=2 * n),
        q.Prefetch(prefetch=either, query=terms, using=_SPARSE, limit=2 * n),
    ]
    return q.QueryRequest(
        prefetch=scored,
        query=q.FormulaQuery(
            formula=q.SumExpression(sum=["$score[0]", "$score[1]"]),
            defaults={"$score[0]": 0.0, "$score[1]": 0.0},
        ),
        limit=limit,
        with_payload=True,
    )


def _sparse_model(sparse: SparseVector) -> q.SparseVector:
    return q.SparseVector(indices=sparse.dims.tolist(), values=sparse.values.tolist())


def _vectors_of(encoded: EncodedItem) -> Any:
    dense = encoded.vector.tolist()
    if not encoded.sparse.n:
        return dense
    return {_DENSE: dense, _SPARSE: _sparse_model(encoded.sparse)}


def _encoded(record: q.Record) -> EncodedItem:
    held: Any = record.vector
    sparse = EMPTY
    if isinstance(held, dict):
        held, stored = held[_DENSE], held.get(_SPARSE)
        if stored is not None:
            dims = np.asarray(stored.indices, np.uint32)
            order = np.argsort(dims)
            sparse = SparseVector(dims[order], np.asarray(stored.values, np.float32)[order])
    return EncodedItem(
        item=item_of(record.payload), vector=np.asarray(held, np.float32), sparse=sparse
    )


def _batches(items: Sequence[EncodedItem]) -> Iterator[list[EncodedItem]]:
    """Cut into requests of bounded points and bytes, in order."""
    batch: list[EncodedItem] = []
    held = 0
    for encoded in items:
        # Counted high: a character as JSON takes 6 bytes at most but for emoji, a number 20.
        n_numbers = len(encoded.vector) + len(encoded.item.image_vector or ())
        n_bytes = 6 * len(encoded.item.text) + 20 * (n_numbers + 2 * encoded.sparse.n)
        if batch and (len(batch) == _BATCH or held + n_bytes > _BATCH_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(encoded)
        held += n_bytes
    if batch:
        yield batch


def _filter(where: ItemFilter, exclude: frozenset[str]) -> q.Filter:
    must: list[Any] = [
        q.FieldCondition(key=field, match=q.MatchValue(value=value))
        for field, value in (
            ("categories", where.category),
            ("brand", where.brand),
            ("domain", where.domain),
            ("availability", AVAILABLE if where.only_available else None),
        )
        if value is not None
    ]
    if where.min_price is not None or where.max_price is not None:
        bounds = q.Range(gte=where.min_price, lte=where.max_price)
        must.append(q.FieldCondition(key="price", range=bounds))
    ids: list[Any] = [point_id(item_id) for item_id in exclude]
    return q.Filter(must=must, must_not=[q.HasIdCondition(has_id=ids)] if ids else None)


def _is_refused(error: Exception) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (401, 403)
    return isinstance(error, AioRpcError) and error.code() in (
        StatusCode.UNAUTHENTICATED,
        StatusCode.PERMISSION_DENIED,
    )


def _in_a_line(error: Exception) -> str:
    # The text of a gRPC error is a dump of several lines; its details are the sentence in it.
    text = f"{error.code().name}: {error.details()}" if isinstance(error, AioRpcError) else error
    return " ".join(str(text).split())[:300] or type(error).__name__
