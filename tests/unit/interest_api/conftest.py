"""A recommender whose answers a test decides, and a client that speaks to the app directly."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from interest.bundle import RetrievalPath
from interest.item import ANY_ITEM, Item, ItemFilter, ScoredItem
from interest.ports import Recommendations, UserState
from interest.vector import Token, UserVector
from interest_api.app import create_app
from interest_api.metrics import PrometheusMetrics

NOW_MS = 1_700_000_001_500
EVENT_MS = 1_700_000_000_000
ENCODE_MS = 1_700_000_000_040


def user_state(user_id: str, n_interests: int = 1) -> UserState:
    vector = UserVector(
        user_id=user_id,
        model_id="m1",
        token=Token(1, 2, 3),
        event_time_ms=EVENT_MS,
        encode_time_ms=ENCODE_MS,
        n_events=4,
        vectors=np.eye(3, dtype=np.float32)[:n_interests],
    )
    return UserState(vector, ())


class FakeRecommender:
    """Knows the users in ``users`` and the item ``kettle/1``; raises ``error`` if there is one."""

    def __init__(self) -> None:
        self.users = {"u1": user_state("u1")}
        self.found = (
            ScoredItem(
                item=Item(item_id="kettle/1", title="A kettle", categories=("kitchen",), price=9.5),
                score=0.75,
            ),
        )
        self.error: Exception | None = None
        self.asked: list[tuple[str, int, bool, ItemFilter]] = []
        self.paths: list[RetrievalPath | None] = []

    def add_user(self, user_id: str, n_interests: int) -> None:
        self.users[user_id] = user_state(user_id, n_interests)

    async def ping(self) -> None:
        self._fail()

    async def user(self, user_id: str) -> UserVector | None:
        self._fail()
        state = self.users.get(user_id)
        return None if state is None else state.vector

    async def recommend(
        self,
        user_id: str,
        k: int,
        *,
        exclude_seen: bool = True,
        where: ItemFilter = ANY_ITEM,
        path: RetrievalPath | None = None,
    ) -> Recommendations:
        self._fail()
        self.paths.append(path)
        self.asked.append((user_id, k, exclude_seen, where))
        state = self.users.get(user_id)
        cold = state is None or state.vector.is_cold
        return Recommendations(
            user_id=user_id,
            basis="popular" if cold else "vector",
            model_id="m1",
            items=self.found[:k],
            event_time_ms=state.vector.event_time_ms if state else None,
            encode_time_ms=state.vector.encode_time_ms if state else None,
        )

    async def similar(
        self, item_id: str, k: int, *, where: ItemFilter = ANY_ITEM
    ) -> list[ScoredItem] | None:
        self._fail()
        return list(self.found[:k]) if item_id == "kettle/1" else None

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def recommender() -> FakeRecommender:
    return FakeRecommender()


@pytest.fixture
def metrics() -> PrometheusMetrics:
    return PrometheusMetrics()


@pytest.fixture
async def client(
    recommender: FakeRecommender, metrics: PrometheusMetrics
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(recommender, metrics=metrics, clock=lambda: NOW_MS)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened
