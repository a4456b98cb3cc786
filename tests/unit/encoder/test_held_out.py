"""Items that a training is kept from."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoder.held_out import held_out_by, held_out_items, without_items
from interest.fold import window_of
from tests.unit.encoder.training.shop import WHOLE, circles, event, windows_of

IDS = [f"item-{n}" for n in range(4_000)]


def test_about_the_share_is_drawn_and_another_seed_draws_others() -> None:
    drawn = held_out_items(IDS, 0.05, seed=0)
    assert 140 < drawn.sum() < 260
    assert (drawn != held_out_items(IDS, 0.05, seed=1)).any()
    assert not held_out_items(IDS, 0.0, seed=0).any()
    assert not held_out_by(None, IDS).any()


@given(st.permutations(IDS[:20]), st.floats(0, 0.9))
def test_the_draw_of_an_item_does_not_depend_on_the_others(ids: list[str], share: float) -> None:
    alone = [held_out_items([item_id], share, 3)[0] for item_id in ids]
    np.testing.assert_array_equal(held_out_items(ids, share, 3), alone)


def test_histories_are_as_if_the_items_did_not_exist() -> None:
    windows = windows_of(circles(12))
    items = sorted({item_id for window in windows for item_id in window.item_ids})
    gone = {i for i, out in zip(items, held_out_items(items, 0.4, 1), strict=True) if out}
    assert gone
    kept = without_items(windows, 0.4, 1)
    wanted = [
        window_of(user, [e for e in circles(12) if (e.user_id, e.item_id in gone) == (user, False)])
        for user in sorted({e.user_id for e in circles(12)})
    ]
    assert [w.content() for w in kept] == [w.content() for w in wanted if len(w)]
    assert without_items(windows, 0.0, 1) == windows


def test_a_user_of_nothing_else_is_left_out_and_searches_stay() -> None:
    (gone,) = [i for i in IDS if held_out_items([i], 0.5, 0)[0]][:1]
    only = window_of("a", [event("a", 0, gone, 0)], WHOLE)
    searched = event("b", 1, None, 1, type="search", text="mug")
    both = window_of("b", [event("b", 0, gone, 0), searched], WHOLE)
    assert [len(window) for window in without_items([only, both], 0.5, 0)] == [1]
