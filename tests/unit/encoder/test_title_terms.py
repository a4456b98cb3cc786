from __future__ import annotations

import math

import numpy as np
import pytest

from encoder.sparse_decay import SparseDecay
from encoder.title_terms import SparseRows, TitleTerms
from interest.bundle import DecayParameters
from interest.errors import BadInput
from tests.unit.encoder.windows import HOUR_MS, window

TITLES = ["red mug", "blue mug", "brass lamp", "", "蓝色 保温 杯子"]


def row(rows: SparseRows, i: int, terms: TitleTerms) -> dict[str, float]:
    span = slice(rows.starts[i], rows.starts[i + 1])
    names = [terms.vocabulary[number] for number in rows.terms[span].tolist()]
    return dict(zip(names, rows.weights[span].tolist(), strict=True))


def test_rare_terms_count_more() -> None:
    """Of four titles with words two hold "mug", one holds "red"."""
    terms = TitleTerms.fit(TITLES)
    red, mug = math.log(4), math.log(2)
    length = math.hypot(red, mug)
    assert row(terms.encode(["A red mug"]), 0, terms) == pytest.approx(
        {"red": red / length, "mug": mug / length}, rel=1e-6
    )


def test_chinese_titles_have_terms_too() -> None:
    terms = TitleTerms.fit(TITLES)
    (same, other) = (terms.encode([text]) for text in ("杯子", "台灯"))
    assert row(same, 0, terms) == pytest.approx({"杯子": 1})
    assert not len(other.terms)


def test_what_was_not_seen_and_what_stands_everywhere_says_nothing() -> None:
    terms = TitleTerms.fit(["red mug", "blue mug"])
    rows = terms.encode(["mug", "teapot", "", "red teapot"])
    assert rows.starts.tolist() == [0, 0, 0, 0, 1]
    assert row(rows, 3, terms) == {"red": 1}


def test_they_can_be_stored() -> None:
    terms = TitleTerms.fit(TITLES)
    again = TitleTerms.of_arrays(terms.arrays())
    assert again.vocabulary == terms.vocabulary
    for ours, theirs in zip(again.encode(TITLES), terms.encode(TITLES), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(BadInput, match="damaged"):
        TitleTerms.of_arrays({"idf": terms.idf})
    with pytest.raises(BadInput, match="weights"):
        TitleTerms.of_arrays({**terms.arrays(), "idf": terms.idf[1:]})


def test_titles_without_a_word_cannot_be_fitted() -> None:
    with pytest.raises(BadInput, match="titles"):
        TitleTerms.fit(["", "!!"])


def test_a_window_pools_the_terms_of_its_items_by_decay() -> None:
    terms = TitleTerms.fit(TITLES)
    items = terms.encode(TITLES)
    decay = DecayParameters(position_decay=0.5, half_life_ms=24 * HOUR_MS)
    users = SparseDecay(items, {"mug": 0, "lamp": 2}, decay)
    rows = users.encode(
        [
            window(("purchase", "mug", {"age_h": 24}), ("purchase", "lamp", {"age_h": 0})),
            window(("purchase", "no such")),
            window(("purchase", "lamp"), ("return", "lamp")),
        ]
    )
    found = row(rows, 0, terms)
    mug, lamp = row(items, 0, terms), row(items, 2, terms)
    expected = {name: 0.25 * weight for name, weight in mug.items()} | lamp
    length = math.sqrt(sum(weight**2 for weight in expected.values()))
    assert found == pytest.approx({k: v / length for k, v in expected.items()}, rel=1e-5)
    assert rows.starts.tolist()[1:] == [4, 4, 4]


def test_old_events_do_not_fade_to_nothing() -> None:
    terms = TitleTerms.fit(TITLES)
    users = SparseDecay(terms.encode(TITLES), {"mug": 0}, DecayParameters(half_life_ms=1))
    rows = users.encode(
        [window(("purchase", "mug", {"age_h": 9_000}), ("purchase", "no such", {"age_h": 0}))]
    )
    np.testing.assert_allclose(np.linalg.norm(rows.weights), 1, atol=1e-6)


def test_no_window_gives_no_row() -> None:
    terms = TitleTerms.fit(TITLES)
    rows = SparseDecay(terms.encode(TITLES), {}, DecayParameters()).encode([])
    assert rows.starts.tolist() == [0]
