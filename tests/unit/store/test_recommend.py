"""Retrieval for readers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from interest.bundle import LiveModel
from interest.errors import CorruptRecord, ServiceUnavailable
from interest.event import EventType
from interest.item import EncodedItem, Item, ItemFilter, unit
from interest.ports import ItemStore, UserState
from interest.recent import RecentBehaviour
from interest.vector import Token, UserVector
from store.embedded_items import EmbeddedItems
from store.recommend import StoreRecommender
from tests.unit.streams.fakes import Vectors

LIVE = LiveModel(model_id="m", collection="items-m", dim=4)
VECTORS = unit(np.random.default_rng(3).normal(size=(20, 4)))


class Users(Vectors):
    """Users, a live model and popular items, given by the test."""

    def __init__(self, dim: int = LIVE.dim) -> None:
        super().__init__()
        self.live: LiveModel | None = LiveModel(model_id="m", collection="items-m", dim=dim)
        self.n_rankings = 0
        self.users: dict[str, UserState] = {}
        self.ranking: list[tuple[str, float]] = []

    async def live_model(self) -> LiveModel | None:
        return self.live

    async def fetch(self, user_ids: Sequence[str], model_id: str) -> list[UserState | None]:
        assert self.live is not None
        assert model_id == self.live.model_id
        return [self.users.get(user_id) for user_id in user_ids]

    async def fetch_popular(self, k: int) -> list[tuple[str, float]]:
        self.n_rankings += 1
        return self.ranking[:k]

    def add(self, user_id: str, rows: np.ndarray, *seen: str) -> None:
        vector = UserVector(
            user_id=user_id, model_id="m", token=Token(0, 0, 1), event_time_ms=5,
            encode_time_ms=6, n_events=len(seen), vectors=rows.astype(np.float32),
        )  # fmt: skip
        recent = tuple(RecentBehaviour(EventType.CLICK, 5, item_id) for item_id in seen)
        self.users[user_id] = UserState(vector, recent)


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
async def recommender(users: Users) -> AsyncIterator[StoreRecommender]:
    items = EmbeddedItems(4)
    await items.open()
    known = [
        Item(item_id=f"i{n}", title=f"t{n}", categories=("odd",) if n % 2 else ("even",))
        for n in range(20)
    ]
    await items.upsert([EncodedItem(item=i, vector=VECTORS[n]) for n, i in enumerate(known)])
    yield StoreRecommender(users, lambda live: items)
    await items.close()


async def test_seen_items_are_left_out_unless_asked_for(
    users: Users, recommender: StoreRecommender
) -> None:
    users.add("u", VECTORS[3:4], "i3", "i4")
    found = await recommender.recommend("u", 20)
    assert found.basis == "vector"
    assert (found.event_time_ms, found.encode_time_ms, found.model_id) == (5, 6, "m")
    ids = {s.item.item_id for s in found.items}
    assert ids == {f"i{n}" for n in range(20)} - {"i3", "i4"}
    again = await recommender.recommend("u", 3, exclude_seen=False)
    assert again.items[0].item.item_id == "i3"


@pytest.mark.parametrize("cold", [True, False])
async def test_a_cold_user_gets_popular_items_and_is_told(
    users: Users, recommender: StoreRecommender, cold: bool
) -> None:
    if cold:
        users.add("u", np.zeros((0, 4)), "i1")
    users.ranking = [("i1", 12.0), ("gone", 11.5), ("i2", 11.0), ("i4", 10.0)]
    found = await recommender.recommend("u", 2)
    assert found.basis == "popular"
    assert found.event_time_ms == (5 if cold else None)
    expected = ["i2", "i4"] if cold else ["i1", "i2"]
    assert [s.item.item_id for s in found.items] == expected
    assert found.items[1].score == pytest.approx(found.items[0].score / 2)


async def test_a_filter_reaches_past_the_most_popular(
    users: Users, recommender: StoreRecommender
) -> None:
    users.ranking = [(f"x{n}", 100.0 - n / 100) for n in range(500)] + [("i2", 1.0), ("i3", 0.5)]
    found = await recommender.recommend("new", 5, where=ItemFilter(category="even"))
    assert [s.item.item_id for s in found.items] == ["i2"]


async def test_the_popular_items_are_added_up_once_a_second_for_all_cold_users(
    users: Users, recommender: StoreRecommender
) -> None:
    now_s = 100.0
    clocked = StoreRecommender(users, recommender._items_for, monotonic_s=lambda: now_s)
    users.ranking = [("i1", 2.0)]
    for user_id in "abc":
        assert len((await clocked.recommend(user_id, 3)).items) == 1
    users.ranking = [("i1", 2.0), ("i2", 1.0)]
    now_s += 0.9
    assert len((await clocked.recommend("d", 3)).items) == 1
    assert users.n_rankings == 1
    now_s += 0.2
    assert len((await clocked.recommend("e", 3)).items) == 2


async def test_a_flip_of_the_live_pointer_is_followed_at_once_and_mixes_no_spaces(
    users: Users, recommender: StoreRecommender
) -> None:
    asked: list[LiveModel] = []

    def items_for(live: LiveModel) -> ItemStore:
        asked.append(live)
        return recommender._items_for(live)

    follower = StoreRecommender(users, items_for)
    users.add("u", VECTORS[3:4])
    assert (await follower.recommend("u", 1)).model_id == "m"
    users.live = LiveModel(model_id="next", collection="items-next", dim=4)
    assert (await follower.recommend("u", 1)).model_id == "next"
    assert asked == [LIVE, users.live], "the record's model and the collection come together"


async def test_similar_items_leave_out_the_item_itself(recommender: StoreRecommender) -> None:
    found = await recommender.similar("i5", 19)
    assert found is not None
    order = np.argsort(-(VECTORS @ VECTORS[5]))
    assert [s.item.item_id for s in found] == [f"i{n}" for n in order if n != 5]
    assert await recommender.similar("unknown", 3) is None


async def test_without_a_live_model_readers_are_told_to_wait(
    users: Users, recommender: StoreRecommender
) -> None:
    users.live = None
    for call in (recommender.user("u"), recommender.recommend("u", 3), recommender.ping()):
        with pytest.raises(ServiceUnavailable, match="live model"):
            await call


async def test_a_record_of_another_space_is_not_used(
    users: Users, recommender: StoreRecommender
) -> None:
    users.add("u", unit(np.ones((1, 5))))
    with pytest.raises(CorruptRecord, match="5 dimensions"):
        await recommender.recommend("u", 3)
