"""Users to look at: who is chosen, what is best for them, and what counts as related."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.evaluation.showcase import (
    Showcase,
    best_items,
    choose,
    dataset_of,
    history_of,
    numbered,
    related_shares,
)
from interest.event import Event, EventType
from interest.fold import window_of
from interest.item import Item
from interest.window import BehaviourWindow

ITEMS = [
    Item(item_id="mug", title="The red mug"),
    Item(item_id="cup", title="A cup of the day"),
    Item(item_id="lamp", title="Brass lamp", categories=("light",)),
    Item(item_id="candle", title="Wax", categories=("light",)),
    Item(item_id="pot", title="Red pots"),
]
ROW = {item.item_id: row for row, item in enumerate(ITEMS)}


def window(user: str, *item_ids: str | None) -> BehaviourWindow:
    events = [
        Event(
            event_id=str(n), user_id=user, ts=1_700_000_000_000 + n * 1_000, item_id=item_id,
            type=EventType.VIEW if item_id else EventType.SEARCH, text=None if item_id else "mug",
        )
        for n, item_id in enumerate(item_ids)
    ]  # fmt: skip
    return window_of(user, events)


def test_a_numbered_window_names_rows_and_leaves_unknown_items_out() -> None:
    (found,) = numbered([window("u", "pot", "gone", None, "mug", "pot")], ITEMS)
    assert found.item_numbers() == (ROW["pot"] + 1, 0, ROW["mug"] + 1, ROW["pot"] + 1)
    assert history_of(found) == [ROW["pot"], ROW["mug"]]


def test_the_log_of_windows_has_their_items_in_order() -> None:
    windows = numbered(
        [window("u", "pot", None, "mug"), window("v", None), window("w", "cup")], ITEMS
    )
    log = dataset_of(windows, ITEMS)
    assert log.starts.tolist() == [0, 2, 2, 3]
    assert log.items.tolist() == [ROW["pot"], ROW["mug"], ROW["cup"]]
    assert log.times_s is not None
    assert log.times_s.tolist() == [1_700_000_000, 1_700_000_002, 1_700_000_000]


def test_users_of_few_items_are_not_chosen_and_a_seed_decides_between_the_others() -> None:
    few = [window(f"few{n}", "mug", "mug") for n in range(20)]
    able = [window(f"able{n}", "mug", "cup") for n in range(20)]
    windows = numbered([*few, *able], ITEMS)
    chosen = [choose(windows, 5, seed, at_least=2) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert all(len(set(one)) == 5 and min(one) >= 20 for one in chosen)
    assert choose(windows, 99, 0, at_least=2) == list(range(20, 40))


def test_the_best_items_are_new_to_the_user_and_ties_do_not_follow_the_file() -> None:
    scores = np.array([[5, 4, 3, 2, 1]], np.float32)
    assert best_items(scores, [[0, 3]], 4, 0).tolist() == [[1, 2, 4, -1]]
    firsts = {
        int(best_items(np.zeros((1, 5), np.float32), [[]], 1, seed)[0, 0]) for seed in range(20)
    }
    assert len(firsts) > 2


def test_related_is_a_word_of_the_title_or_a_category_and_no_stop_word() -> None:
    rows = [ROW[item_id] for item_id in ("pot", "cup", "candle")]
    history = [ROW["lamp"], ROW["mug"]]  # newest first
    showcase = Showcase(
        ITEMS, ["u", "v"], [history, history],
        {"some": np.array([rows, [-1, -1, -1]]), "none": np.full((2, 3), -1)},
    )  # fmt: skip
    assert related_shares(showcase)["some"] == pytest.approx(2 / 3)
    assert related_shares(showcase, 1)["some"] == pytest.approx(1 / 3)
    assert np.isnan(related_shares(showcase)["none"])
