from __future__ import annotations

import random

import numpy as np
import pytest

from encoder.training.fit import held_out_of
from encoder.training.histories import Histories, histories_of, split_newest
from interest.errors import BadInput
from interest.event import Event, EventType
from interest.item import Item
from tests.unit.encoder.training.shop import ITEMS, circles, event, windows_of


def laid_out(*events: Event) -> Histories:
    return histories_of(windows_of(events), ITEMS, bad_rating=2.0)


def test_neither_the_order_of_the_log_nor_of_the_catalogue_matters() -> None:
    events = circles(8)
    one = histories_of(windows_of(events), ITEMS, 2.0)
    shuffled = random.Random(0).sample(events, len(events))
    other = histories_of(windows_of(shuffled)[::-1], ITEMS[::-1], 2.0)
    assert one.fingerprint == other.fingerprint
    assert np.array_equal(one.rows, other.rows)
    assert histories_of(windows_of(events), ITEMS[1:], 2.0).fingerprint != one.fingerprint
    assert histories_of(windows_of(events[1:]), ITEMS, 2.0).fingerprint != one.fingerprint


def test_what_pushes_away_is_read_and_never_a_target() -> None:
    held = laid_out(
        event("u", 0, "i00", 0),
        event("u", 1, "i01", 1, type=EventType.RETURN),
        event("u", 2, "i02", 2, type=EventType.REVIEW, rating=2.0),
        event("u", 3, "i03", 3, type=EventType.REVIEW, rating=2.5),
    )
    assert held.pulls.tolist() == [True, False, False, True]
    assert len(held.rows) == 4


def test_searches_are_read_by_their_text_and_are_no_target() -> None:
    held = laid_out(
        event("u", 0, None, 0, type=EventType.SEARCH, text="a red mug"),
        event("u", 1, None, 1, type=EventType.SEARCH, text="  "),
        event("u", 2, "i02", 2, type=EventType.SEARCH, text="thing"),
    )
    assert held.queries == ["a red mug"]
    assert held.rows.tolist() == [len(ITEMS), 2]
    assert held.places.tolist() == [0, 2]
    assert held.pulls.tolist() == [False, True]


def test_an_item_that_only_the_log_knows_has_no_title() -> None:
    held = laid_out(event("u", 0, "unheard of", 0))
    assert held.items[int(held.rows[0])] == Item(item_id="unheard of", title="")


def test_the_newest_event_is_held_out_and_untied_users_count() -> None:
    held = laid_out(
        *(event("few", n, "i00", n) for n in range(2)),
        *(event("tied", n, f"i0{n}", min(n, 1)) for n in range(3)),
        *(event("untied", n, f"i0{n}", n) for n in range(3)),
        *(event("away", n, f"i0{n}", n, type=EventType.RETURN) for n in range(3)),
    )
    split = split_newest(held, 10, seed=0)
    names = [held.windows[user].subject_id for user in split.users]
    assert names == ["untied"]
    assert held.items[int(held.rows[split.targets[0]])].item_id == "i02"
    trained = dict(zip((w.subject_id for w in held.windows), split.ends, strict=True))
    lengths = {name: trained[name] - start for name, start in zip(
        (w.subject_id for w in held.windows), held.starts, strict=False)}  # fmt: skip
    assert lengths == {"away": 3, "few": 2, "tied": 2, "untied": 2}


def test_where_all_are_tied_all_count_and_a_draw_is_the_same_for_a_seed() -> None:
    held = laid_out(*(event(f"u{u}", n, f"i0{n}", 0) for u in range(9) for n in range(3)))
    assert len(split_newest(held, 100, 0).users) == 9
    drawn = split_newest(held, 4, 1)
    assert len(drawn.users) == 4
    assert np.array_equal(drawn.users, split_newest(held, 4, 1).users)
    assert (drawn.ends == held.starts[1:] - 1).all(), "held out of those that do not count, too"


def test_what_users_have_is_not_ranked_unless_people_buy_again() -> None:
    new = laid_out(*(event("u", n, f"i0{n}", n) for n in range(4)))
    assert held_out_of(new, split_newest(new, 9, 0)).masked.tolist() == [0, 1, 2]
    again = laid_out(*(event("u", n, f"i0{n % 2}", n) for n in range(4)))
    assert not len(held_out_of(again, split_newest(again, 9, 0)).masked)


def test_a_log_without_a_behaviour_is_refused() -> None:
    with pytest.raises(BadInput, match="no behaviour"):
        laid_out()
