"""The worked example of the ranking: user [.5, .3, .8], three one-hot items, item 3 first."""

from __future__ import annotations

import numpy as np
import pytest

from interest.item import EncodedItem, Item, unit
from store.embedded_items import EmbeddedItems
from store.matching import best_scores
from store.recommend import StoreRecommender
from tests.unit.store.test_recommend import Users

USER = np.array([[0.5, 0.3, 0.8]])
ONE_HOT = np.eye(3, dtype=np.float32)


def test_the_scores_are_exactly_the_users_own_numbers() -> None:
    assert best_scores(USER, ONE_HOT).tolist() == [0.5, 0.3, 0.8]


def test_of_several_interests_the_greatest_score_counts() -> None:
    interests = np.array([[0.5, 0.3, 0.8], [0.9, 0.1, 0.0]])
    assert best_scores(interests, ONE_HOT).tolist() == [0.9, 0.3, 0.8]


async def test_item_3_is_recommended_first_and_not_when_it_was_seen() -> None:
    items = EmbeddedItems(3)
    await items.open()
    await items.upsert(
        [
            EncodedItem(item=Item(item_id=f"item {i + 1}", title="t"), vector=ONE_HOT[i])
            for i in range(3)
        ]
    )
    users = Users(dim=3)
    # Stored vectors have unit length; that scales all scores alike.
    users.add("new eyes", unit(USER))
    users.add("has seen it", unit(USER), "item 3")
    recommender = StoreRecommender(users, lambda live: items)

    answer = await recommender.recommend("new eyes", 3)
    assert [s.item.item_id for s in answer.items] == ["item 3", "item 1", "item 2"]
    length = float(np.linalg.norm(USER))
    assert [s.score * length for s in answer.items] == pytest.approx([0.8, 0.5, 0.3], abs=1e-6)

    answer = await recommender.recommend("has seen it", 3)
    assert [s.item.item_id for s in answer.items] == ["item 1", "item 2"]
    answer = await recommender.recommend("has seen it", 1, exclude_seen=False)
    assert [s.item.item_id for s in answer.items] == ["item 3"]
    await items.close()
