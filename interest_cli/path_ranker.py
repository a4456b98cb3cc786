"""Rankings as the API gives them: the embedded item store, and the code of a retrieval path."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.ranking import N_BEST, NOT_RETRIEVABLE
from encoder.factory import Encoders
from interest.bundle import RetrievalPath
from interest.encoded_items import EncodedItems
from interest.item import EncodedItem, Item, ScoredItem
from interest.ports import UserState
from interest.recent import recent_from_bytes, recent_of
from interest.sparse import EMPTY
from interest.vector import Token, UserVector
from interest.window import BehaviourWindow
from store.embedded_items import EmbeddedItems
from store.paths import retrieve


class PathRanker:
    """The port ``encoder.evaluation.ranking.Ranker`` over one retrieval path of a bundle.

    Only the best items of each user have scores; the others lie below them, together. What the API
    leaves out as seen, the items of the window, is left out here, too, where that is asked for: so
    the candidates of ``rerank`` are the same. Close it to give the item store back.

    Args:
        encoders: users are encoded with it, as a worker does; it names the bundle.
        items: the catalogue as the bundle encodes it; only these can be found.
        row_of: the row of each item among all that are scored.
        path: None for the one that the bundle names as its best.
        n_best: items of each user that have a score.
        exclude_seen: false where people buy again.
    """

    def __init__(
        self,
        encoders: Encoders,
        items: EncodedItems,
        row_of: Mapping[str, int],
        *,
        path: RetrievalPath | None = None,
        n_best: int = 5 * N_BEST,
        exclude_seen: bool = True,
    ) -> None:
        self._encoders = encoders
        self._items = items
        self._row_of = row_of
        self._weights = encoders.bundle.config.paths
        self._path = path or (self._weights.best if self._weights else "dense")
        self._n_best = n_best
        self._exclude_seen = exclude_seen
        self._store = EmbeddedItems(encoders.bundle.dim)
        self._runner = asyncio.Runner()
        self._runner.run(self._fill())

    def __enter__(self) -> PathRanker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the item store back."""
        self._runner.run(self._store.close())
        self._runner.close()

    async def _fill(self) -> None:
        await self._store.open()
        held = self._items.items_by_row
        sparse = [EMPTY] * len(held)
        if self._encoders.sparse is not None:
            sparse = self._encoders.sparse.encode_items(held)
        await self._store.upsert(
            [
                EncodedItem(item=_titled(item), vector=vector, sparse=beside)
                for item, vector, beside in zip(held, self._items.vectors, sparse, strict=True)
            ]
        )

    def scores(self, windows: Sequence[BehaviourWindow]) -> NDArray[np.float32]:
        """See :class:`encoder.evaluation.ranking.Ranker`."""
        scores = np.full((len(windows), len(self._row_of)), NOT_RETRIEVABLE)
        for row, found in zip(scores, self.best(windows), strict=True):
            for scored in found:
                row[self._row_of[scored.item.item_id]] = scored.score
        return scores

    def best(self, windows: Sequence[BehaviourWindow]) -> list[list[ScoredItem]]:
        """Give the best items of each window, as the API would; none for a cold user."""
        return self._runner.run(self._retrieve(self._states(windows)))

    async def _retrieve(self, states: Sequence[UserState]) -> list[list[ScoredItem]]:
        return await asyncio.gather(*map(self._of_one, states))

    async def _of_one(self, state: UserState) -> list[ScoredItem]:
        if state.vector.is_cold:
            return []
        seen = {one.item_id for one in state.recent if one.item_id is not None}
        return await retrieve(
            self._store, state, self._path, self._weights, k=self._n_best,
            exclude=frozenset(seen) if self._exclude_seen else frozenset(),
        )  # fmt: skip

    def _states(self, windows: Sequence[BehaviourWindow]) -> list[UserState]:
        """Give what a worker would store of the windows."""
        rows = self._encoders.users.encode(windows, self._items)  # (B, D)
        sparse = [EMPTY] * len(windows)
        if self._encoders.sparse is not None:
            sparse = self._encoders.sparse.encode(windows, self._items)
        return [
            UserState(
                UserVector(
                    user_id=window.subject_id,
                    model_id=self._encoders.bundle.model_id,
                    token=Token(0, 0, 0),
                    event_time_ms=window.event_time_ms,
                    encode_time_ms=window.event_time_ms,
                    n_events=len(window),
                    vectors=row[np.newaxis][: int(row.any())],
                    sparse=beside,
                ),
                recent_from_bytes(recent_of(window)),
            )
            for window, row, beside in zip(windows, rows, sparse, strict=True)
        ]


def _titled(item: Item) -> Item:
    """Give an item as a store takes it: a benchmark's may have no title, a catalogue's has one."""
    return item if item.title.strip() else msgspec.structs.replace(item, title=item.item_id)
