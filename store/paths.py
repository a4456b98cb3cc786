"""Retrieval paths: three ways from a user's record to items, by one set of weights for all users.

dense   the nearest items to the user's vectors: one dot product
hybrid  dense + weights × sparse dot product (title terms, links between items), in one query
rerank  the best 200 of hybrid, ranked again by a weighted sum with what an index does not know

A model without sparse vectors has no weights, and is served by ``dense`` whatever is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from interest.bundle import PathWeights, RetrievalPath, RetrievalPaths
from interest.event import EventType
from interest.item import ANY_ITEM, EncodedItem, ItemFilter, ItemQuery, ScoredItem
from interest.ports import ItemStore, UserState
from interest.sparse import SparseVector, dots

#: Items that ``rerank`` looks at.
CANDIDATES: Final = 200
_AWAY: Final = (EventType.REMOVE, EventType.RETURN)


async def retrieve(
    items: ItemStore,
    state: UserState,
    path: RetrievalPath,
    weights: RetrievalPaths | None,
    *,
    k: int,
    exclude: frozenset[str] = frozenset(),
    where: ItemFilter = ANY_ITEM,
) -> list[ScoredItem]:
    """Find the best ``k`` items for a user who is not cold, best first, ties by item id.

    Args:
        state: its recent behaviours are read by ``rerank`` alone.
        weights: of the live model; None leaves ``dense`` alone.

    Raises:
        ServiceUnavailable: the item store does not answer.
    """
    vectors, sparse = state.vector.vectors, state.vector.sparse
    if path == "dense" or weights is None:
        return await items.search(ItemQuery(vectors=vectors, k=k, exclude=exclude, filter=where))
    hybrid = weights.hybrid
    found = await items.search(
        ItemQuery(
            vectors=vectors,
            sparse=sparse.weighed(hybrid.terms, hybrid.links),
            k=max(k, CANDIDATES) if path == "rerank" else k,
            exclude=exclude,
            filter=where,
        )
    )
    if path == "hybrid":
        return found
    return await _ranked_again(items, state, found, weights.rerank, k)


async def _ranked_again(
    items: ItemStore,
    state: UserState,
    found: Sequence[ScoredItem],
    weights: PathWeights,
    k: int,
) -> list[ScoredItem]:
    newest = newest_item(state)
    wanted = [scored.item.item_id for scored in found]
    known = await items.fetch([*wanted, newest] if newest else wanted)
    candidates = [known[item_id] for item_id in wanted if item_id in known]  # else removed since
    if not candidates:
        return []
    last = known[newest].vector if newest in known else None
    scores = rerank_scores(
        candidates, state.vector.vectors, state.vector.sparse, last, weights
    ).tolist()
    ranked = [
        ScoredItem(item=encoded.item, score=score)
        for encoded, score in zip(candidates, scores, strict=True)
    ]
    ranked.sort(key=lambda scored: (-scored.score, scored.item.item_id))
    return ranked[:k]


def rerank_scores(
    candidates: Sequence[EncodedItem],
    vectors: NDArray[np.float32],
    sparse: SparseVector,
    last: NDArray[np.float32] | None,
    weights: PathWeights,
) -> NDArray[np.float32]:
    """Give the weighted sum of features of each candidate, (C,).

    Args:
        vectors: (n, D) of the user, n ≥ 1.
        last: (D,) of the newest item; None where it is not known.
    """
    matrix = np.stack([encoded.vector for encoded in candidates])  # (C, D)
    scores = _best(vectors, matrix)
    scores += dots(
        sparse.weighed(weights.terms, weights.links), [encoded.sparse for encoded in candidates]
    )
    if last is not None and weights.last:
        scores += weights.last * _best(last[np.newaxis], matrix)
    return scores.astype(np.float32)


def _best(vectors: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    # Not a matrix product: BLAS rounds a row by its place, and equal items must tie.
    products = np.einsum("cd,nd->cn", matrix.astype(np.float64), vectors.astype(np.float64))
    best: NDArray[np.float64] = products.max(axis=1)
    return best


def newest_item(state: UserState) -> str | None:
    """Give the item of the newest behaviour that has one and does not push it away."""
    for behaviour in state.recent:
        if behaviour.item_id is not None and behaviour.type not in _AWAY:
            return behaviour.item_id
    return None
