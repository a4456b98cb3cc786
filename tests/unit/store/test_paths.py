"""Retrieval paths, against what an exhaustive sum of the same features gives."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from interest.bundle import PathWeights, RetrievalPath, RetrievalPaths
from interest.event import EventType
from interest.item import EncodedItem, Item, ItemFilter, unit
from interest.ports import ItemStore, UserState
from interest.recent import RecentBehaviour
from interest.sparse import LINKS_FROM, SparseVector, dots
from interest.vector import Token, UserVector
from store.embedded_items import EmbeddedItems
from store.paths import CANDIDATES, retrieve

N, DIM = 400, 6
RNG = np.random.default_rng(3)
VECTORS = unit(RNG.normal(size=(N, DIM)))
WEIGHTS = RetrievalPaths(
    hybrid=PathWeights(terms=1.5, links=0.7), rerank=PathWeights(terms=0.5, links=2.0, last=0.8)
)


def sparse(n_terms: int, n_links: int) -> SparseVector:
    terms = np.sort(RNG.choice(40, n_terms, replace=False))
    links = np.sort(RNG.choice(N, n_links, replace=False)) + LINKS_FROM
    values = RNG.random(n_terms + n_links).astype(np.float32)
    return SparseVector(np.concatenate([terms, links]).astype(np.uint32), values)


ITEMS = [
    EncodedItem(
        item=Item(item_id=f"i{n:03}", title="t", categories=("odd",) if n % 2 else ()),
        vector=VECTORS[n],
        sparse=sparse(4, 30),
    )
    for n in range(N)
]
USER = SparseVector(
    np.array([1, 5, 9, 20, LINKS_FROM + 7, LINKS_FROM + 300], np.uint32),
    np.array([0.5, 0.5, 0.5, 0.5, 0.8, 0.6], np.float32),
)


def state(*recent: tuple[EventType, str | None]) -> UserState:
    vector = UserVector(
        user_id="u", model_id="m", token=Token(0, 0, 1), event_time_ms=5, encode_time_ms=6,
        n_events=2, vectors=VECTORS[:2] * np.float32(1), sparse=USER,
    )  # fmt: skip
    return UserState(vector, tuple(RecentBehaviour(type_, 5, item) for type_, item in recent))


def summed(weights: PathWeights, last: int | None = None) -> np.ndarray:
    scores: np.ndarray = (VECTORS[:2] @ VECTORS.T).max(axis=0).astype(np.float64)
    scores += dots(USER.weighed(weights.terms, weights.links), [e.sparse for e in ITEMS])
    if last is not None:
        scores += weights.last * (VECTORS @ VECTORS[last])
    return scores


def best(scores: np.ndarray, rows: np.ndarray, k: int) -> list[str]:
    return [ITEMS[row].item.item_id for row in rows[np.argsort(-scores[rows])][:k]]


@pytest.fixture
async def store() -> AsyncIterator[ItemStore]:
    made = EmbeddedItems(DIM)
    await made.open()
    await made.upsert(ITEMS)
    yield made
    await made.close()


async def ids(store: ItemStore, path: RetrievalPath, **asked: object) -> list[str]:
    user = state((EventType.RETURN, "i003"), (EventType.SEARCH, None), (EventType.CLICK, "i011"))
    options = {"k": 12, **asked}
    return [
        scored.item.item_id
        for scored in await retrieve(store, user, path, WEIGHTS, **options)  # type: ignore[arg-type]
    ]


async def test_dense_asks_for_the_vectors_alone(store: ItemStore) -> None:
    everything = np.arange(N)
    assert await ids(store, "dense") == best(summed(PathWeights()), everything, 12)
    found = await retrieve(store, state(), "rerank", None, k=5)
    assert [s.item.item_id for s in found] == best(summed(PathWeights()), everything, 5)


async def test_hybrid_adds_terms_and_links_by_their_weights(store: ItemStore) -> None:
    odd = np.arange(1, N, 2)
    rows = odd[odd != 41]
    found = await ids(
        store, "hybrid", exclude=frozenset({"i041"}), where=ItemFilter(category="odd")
    )
    assert found == best(summed(WEIGHTS.hybrid), rows, 12)
    assert found != best(summed(PathWeights()), rows, 12)


async def test_rerank_ranks_the_candidates_of_hybrid_by_its_own_weights(store: ItemStore) -> None:
    hybrid = summed(WEIGHTS.hybrid)
    candidates = np.argsort(-hybrid)[:CANDIDATES]
    found = await ids(store, "rerank")
    assert found == best(summed(WEIGHTS.rerank, last=11), candidates, 12)
    assert found != best(hybrid, candidates, 12)


async def test_a_newest_item_that_is_gone_counts_nothing(store: ItemStore) -> None:
    candidates = np.argsort(-summed(WEIGHTS.hybrid))[:CANDIDATES]
    user = state((EventType.CLICK, "gone"), (EventType.CLICK, "i011"))
    found = await retrieve(store, user, "rerank", WEIGHTS, k=9)
    assert [s.item.item_id for s in found] == best(summed(WEIGHTS.rerank), candidates, 9)


async def test_an_empty_store_has_nothing_to_rank() -> None:
    empty = EmbeddedItems(DIM)
    await empty.open()
    assert await retrieve(empty, state(), "rerank", WEIGHTS, k=9) == []
    await empty.close()
