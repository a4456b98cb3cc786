"""What each ranker scores, on logs that can be reckoned by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.evaluation.baselines import POSITION_DECAY, CoOccurrence, Ease, Popularity
from encoder.evaluation.dataset import Dataset
from encoder.evaluation.histories import EVALUATION_LIMITS, histories, item_table
from encoder.evaluation.protocols import Cases, Split, leave_one_out
from encoder.evaluation.ranking import NOT_RETRIEVABLE, Ranker
from encoder.evaluation.rows import ROWS, Rows, chosen
from encoder.evaluation.vectors import WeightedSum
from interest.errors import BadInput
from interest.event import EventType
from interest.item import Item, unit
from interest.window import BehaviourWindow
from tests.unit.encoder.evaluation.logs import dataset

#: Together: 0 and 1 twice, 1 and 2 once; the last two events are targets.
LOG = [[0, 1, 5, 5], [0, 1, 5, 5], [1, 2, 5, 5], [3, 5, 5]]
TITLES = ["red mug", "blue mug", "green cup", "brass lamp", "", "oak table"]


def window_of(data: Dataset, *items: int) -> BehaviourWindow:
    """The window of a user who did this, in the table of a dataset."""
    log = dataset([[*items, 0]], n_items=data.n_items)
    cases = Cases(np.array([0]), np.array([len(items)]))
    (window,) = histories(log, cases, EVALUATION_LIMITS, item_table(data))
    return window


class WordEncoder:
    """A vector per title: one axis for each word it holds."""

    words = ("red", "blue", "green", "brass", "oak", "mug", "cup", "lamp", "table")
    dim = len(words)

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        return self.encode_texts([item.text for item in items])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return unit(np.array([[word in text.split() for word in self.words] for text in texts]))


def rows_of(data: Dataset) -> Rows:
    encoder = WordEncoder()
    return Rows(data, leave_one_out(data), lambda: encoder, lambda: encoder.encode_texts(TITLES))


def scores(ranker: Ranker, data: Dataset, *items: int) -> NDArray[np.float32]:
    row: NDArray[np.float32] = ranker.scores([window_of(data, *items)])[0]
    return row


def test_popularity_counts_training_events_alone() -> None:
    data = dataset(LOG)
    row = scores(Popularity(data, leave_one_out(data)), data, 2)
    assert row.tolist() == [2, 3, 1, 1, 0, 0]


def test_co_occurrence_is_the_cosine_of_who_had_both() -> None:
    data = dataset(LOG)
    ranker = CoOccurrence(data, leave_one_out(data))
    np.testing.assert_allclose(
        scores(ranker, data, 0), [0, 2 / np.sqrt(2 * 3), 0, 0, 0, 0], rtol=1e-6
    )
    np.testing.assert_allclose(
        scores(ranker, data, 2, 0),
        [0, 2 / np.sqrt(2 * 3) + POSITION_DECAY / np.sqrt(1 * 3), 0, 0, 0, 0],
        rtol=1e-6,
    )


def test_co_occurrence_of_many_pairs_is_that_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    data = dataset([random.integers(12, size=10).tolist() for _ in range(30)], n_items=12)
    split = leave_one_out(data)
    at_once = scores(CoOccurrence(data, split), data, 3, 7)
    monkeypatch.setattr("encoder.links._MERGED_KEYS", 5)
    np.testing.assert_array_equal(scores(CoOccurrence(data, split), data, 3, 7), at_once)
    assert at_once.any()


def test_ease_solves_its_regression() -> None:
    """B minimises |X - XB|² + λ|B|² with a zero diagonal: column by column ridge regression."""
    random = np.random.default_rng(0)
    data = dataset([random.permutation(8)[:6].tolist() for _ in range(40)], n_items=8)
    split = leave_one_out(data)
    x = np.zeros((40, 8))
    x[data.users()[split.train], data.items[split.train]] = 1
    expected = np.zeros(8)  # row 3 of B
    for j in range(8):
        others = [i for i in range(8) if i != j]
        gram = x[:, others].T @ x[:, others] + 300 * np.eye(7)
        solved = np.linalg.solve(gram, x[:, others].T @ x[:, j])
        expected[j] = dict(zip(others, solved, strict=True)).get(3, 0.0)
    np.testing.assert_allclose(scores(Ease(data, split), data, 3), expected, atol=1e-6)


def test_rankers_fitted_on_training_events_do_not_see_targets() -> None:
    """Other targets, the same scores."""
    data = dataset(LOG, n_items=6)
    other = dataset([[*one[:-2], 4, 4] for one in LOG], n_items=6)
    for make in (Popularity, CoOccurrence, Ease):
        np.testing.assert_array_equal(
            scores(make(data, leave_one_out(data)), data, 0, 1),
            scores(make(other, leave_one_out(other)), other, 0, 1),
        )


def test_text_rows_find_items_that_are_alike() -> None:
    data = dataset(LOG, titles=TITLES)
    for name in ("mean-of-items", "last-item", "zero-shot", "title-terms", "zero-shot-sparse"):
        row = scores(rows_of(data).ranker(name), data, 0)
        assert row.argsort()[::-1][:2].tolist() == [0, 1], name


def test_an_item_without_title_is_never_retrieved_and_says_nothing() -> None:
    data = dataset(LOG, titles=TITLES)
    for name in ("mean-of-items", "zero-shot"):
        ranker = rows_of(data).ranker(name)
        assert scores(ranker, data, 0)[4] == NOT_RETRIEVABLE
        assert not np.delete(scores(ranker, data, 4), 4).any()
    sparse = rows_of(data).ranker("zero-shot-sparse")
    assert scores(sparse, data, 0)[4] == scores(sparse, data, 0).min() < -1


def test_last_item_reads_the_newest_event_alone() -> None:
    data = dataset(LOG, titles=TITLES)
    ranker = rows_of(data).ranker("last-item")
    np.testing.assert_array_equal(scores(ranker, data, 3, 0), scores(ranker, data, 0))
    mean = rows_of(data).ranker("mean-of-items")
    assert (scores(mean, data, 3, 0) != scores(mean, data, 0)).any()


def test_a_returned_item_pulls_no_terms() -> None:
    log = dataset(
        [[3, 0, 0, 1]],
        n_items=6,
        titles=TITLES,
        types=[[EventType.CART, EventType.PURCHASE, EventType.RETURN, EventType.CART]],
    )
    last = Cases(np.array([0]), np.array([3]))
    split = Split("leave-one-out", np.ones(4, np.bool_), last, last)
    encoder = WordEncoder()
    rows = Rows(log, split, lambda: encoder, lambda: encoder.encode_texts(TITLES))
    windows = list(histories(log, split.test, EVALUATION_LIMITS, item_table(log)))
    (row,) = rows.ranker("title-terms").scores(windows)
    assert np.flatnonzero(row).tolist() == [3]
    assert row[3] == pytest.approx(1)


def test_a_weighted_sum_is_one() -> None:
    data = dataset(LOG)
    split = leave_one_out(data)
    one, two = Popularity(data, split), CoOccurrence(data, split)
    np.testing.assert_allclose(
        scores(WeightedSum([(one, 0.5), (two, 2.0)]), data, 0),
        0.5 * scores(one, data, 0) + 2 * scores(two, data, 0),
    )


def test_rows_are_refused_where_they_cannot_be_made() -> None:
    rows = rows_of(dataset(LOG))
    with pytest.raises(BadInput, match="the items have no titles"):
        rows.ranker("zero-shot")
    assert not rows.why_not("ease")
    big = dataset([[0, 1, 2]], n_items=20_001)
    assert "20,001 items" in rows_of(big).why_not("ease")


def test_rows_come_in_the_order_of_the_table() -> None:
    assert chosen(["ease", "popularity"]) == ["popularity", "ease"]
    assert chosen([]) == list(ROWS)
    with pytest.raises(BadInput, match="no row best; there are popularity"):
        chosen(["best"])
