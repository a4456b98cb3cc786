"""Retrieval and ranking for readers: the port ``Recommender``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from interest.bundle import LiveModel, RetrievalPath
from interest.errors import CorruptRecord, ServiceUnavailable
from interest.item import ANY_ITEM, ItemFilter, ItemQuery, ScoredItem
from interest.ports import (
    ItemStore,
    Recommendations,
    UserState,
    UserVectorStore,
)
from interest.vector import UserVector
from store.matching import matches
from store.paths import retrieve

#: Popular items considered at most, and looked up at once: a filter may pass over many.
_POPULAR: Final = 5_000
_LOOKED_UP: Final = 200
#: Popular items change with the checkpoints; adding up the partitions for each cold user would
#: cost milliseconds of the event loop.
_POPULAR_FOR_S: Final = 1.0


def _known(live: LiveModel | None) -> LiveModel:
    if live is None:
        raise ServiceUnavailable("no live model is set yet; the first worker sets it")
    return live


class StoreRecommender:
    """Answers from a vector store and the item store of the live model.

    The live pointer is read with every request and names model and collection together, so no
    answer mixes two spaces.

    Args:
        items_for: gives the item store of a live model.
        path: how items are found where a request does not say; None for the model's best.
        pseudonym: gives what stands for a user id in the vector store.
        monotonic_s: seconds from any origin; popular items are read again after one.
    """

    def __init__(
        self,
        vectors: UserVectorStore,
        items_for: Callable[[LiveModel], ItemStore],
        *,
        path: RetrievalPath | None = None,
        pseudonym: Callable[[str], str] = str,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vectors = vectors
        self._items_for = items_for
        self._path = path
        self._pseudonym = pseudonym
        self._monotonic_s = monotonic_s
        self._ranking: list[tuple[str, float]] = []
        self._ranking_until_s = float("-inf")

    async def _live(self) -> LiveModel:
        return _known(await self._vectors.live_model())

    async def ping(self) -> None:
        """Return if the stores answer and a live model is set."""
        await self._vectors.ping()
        await self._items_for(await self._live()).ping()

    async def user(self, user_id: str) -> UserVector | None:
        """Read one user's vector of the live model."""
        _, state = await self._user(user_id, recent=False)
        return None if state is None else state.vector

    async def _user(self, user_id: str, *, recent: bool) -> tuple[LiveModel, UserState | None]:
        found = await self._vectors.fetch_live(self._pseudonym(user_id), recent=recent)
        live, state = _known(found.live), found.state
        if state is not None and state.vector.dim != live.dim:
            raise CorruptRecord(
                f"the record of a user has {state.vector.dim} dimensions, "
                f"the live model {live.model_id} has {live.dim}"
            )
        return live, state

    async def recommend(
        self,
        user_id: str,
        k: int,
        *,
        exclude_seen: bool = True,
        where: ItemFilter = ANY_ITEM,
        path: RetrievalPath | None = None,
    ) -> Recommendations:
        """Recommend items: those that fit the user's interests best, or popular ones."""
        path = path or self._path
        live, state = await self._user(user_id, recent=exclude_seen or path != "dense")
        if path is None:
            path = live.paths.best if live.paths else "dense"
        items = self._items_for(live)
        seen: frozenset[str] = frozenset()
        if state is not None and exclude_seen:
            seen = frozenset(b.item_id for b in state.recent if b.item_id is not None)
        if state is None or state.vector.is_cold:
            found = await self._popular(items, k, seen, where)
        else:
            found = await retrieve(items, state, path, live.paths, k=k, exclude=seen, where=where)
        return Recommendations(
            user_id=user_id,
            basis="popular" if state is None or state.vector.is_cold else "vector",
            model_id=live.model_id,
            items=tuple(found),
            event_time_ms=state.vector.event_time_ms if state else None,
            encode_time_ms=state.vector.encode_time_ms if state else None,
        )

    async def _popular(
        self, items: ItemStore, k: int, seen: frozenset[str], where: ItemFilter
    ) -> list[ScoredItem]:
        ranked = [(i, s) for i, s in await self._popular_ranking() if i not in seen]
        # Scores are log2 of decayed counts; shown relative to the most popular, from 1 down.
        best = ranked[0][1] if ranked else 0.0
        found: list[ScoredItem] = []
        for first in range(0, len(ranked), _LOOKED_UP):
            part = ranked[first : first + _LOOKED_UP]
            known = await items.fetch([item_id for item_id, _ in part])
            found.extend(
                ScoredItem(item=known[item_id].item, score=float(2.0 ** (score - best)))
                for item_id, score in part
                if item_id in known and matches(known[item_id].item, where)
            )
            if len(found) >= k:
                break
        return found[:k]

    async def _popular_ranking(self) -> list[tuple[str, float]]:
        if self._monotonic_s() >= self._ranking_until_s:
            self._ranking = await self._vectors.fetch_popular(_POPULAR)
            self._ranking_until_s = self._monotonic_s() + _POPULAR_FOR_S
        return self._ranking

    async def similar(
        self, item_id: str, k: int, *, where: ItemFilter = ANY_ITEM
    ) -> list[ScoredItem] | None:
        """Find the items nearest to an item, without itself; None for an unknown item."""
        items = self._items_for(await self._live())
        found = await items.fetch([item_id])
        if item_id not in found:
            return None
        return await items.search(
            ItemQuery(
                vectors=found[item_id].vector[np.newaxis],
                k=k,
                exclude=frozenset({item_id}),
                filter=where,
            )
        )
