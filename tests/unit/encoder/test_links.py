"""Links between items."""

from __future__ import annotations

import numpy as np
import pytest

import encoder.links
from encoder.links import Links, co_occurrence, ease_weights, first_of_each, fit_links

USERS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3], np.int64)
ITEMS = np.array([0, 1, 2, 0, 1, 2, 3, 3, 1, 0, 4], np.int64)


def whole(links: Links, n: int) -> np.ndarray:
    """(N, N): to the row's item from the column's."""
    matrix = np.zeros((n, n), np.float32)
    target = np.repeat(np.arange(n), np.diff(links.starts))
    matrix[target, links.sources] = links.weights
    return matrix


def test_the_strongest_weights_of_ease_to_each_item_are_kept() -> None:
    weights = ease_weights(*first_of_each(USERS, ITEMS, 5), 5).numpy()
    links = whole(fit_links(USERS, ITEMS, 5, n_links=2), 5)
    for item in range(5):
        expected = np.where(weights[:, item] > 0, weights[:, item], 0)
        expected[np.argsort(-expected, kind="stable")[2:]] = 0
        assert links[item] == pytest.approx(expected)


def test_what_is_never_together_is_not_linked() -> None:
    links = whole(fit_links(USERS, ITEMS, 5), 5)
    assert links[0, 1] > 0
    assert (links[3, [0, 1, 4]] < 1e-4).all()
    assert not links.diagonal().any()
    assert (links >= 0).all()


def test_a_catalogue_too_large_for_ease_is_linked_by_cosines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder.links, "EASE_MAX_ITEMS", 4)
    links = whole(fit_links(USERS, ITEMS, 5, n_links=2), 5)
    found = co_occurrence(*first_of_each(USERS, ITEMS, 5), 5)
    cosines = np.zeros((5, 5))
    cosines[found.item, found.neighbour] = found.weight
    assert cosines[0, 1] == pytest.approx(1.0)
    assert cosines[2, 3] == pytest.approx(1 / np.sqrt(2))
    for item in range(5):
        order = np.argsort(-cosines[item], kind="stable")
        cosines[item, order[2:]] = 0
    assert links == pytest.approx(cosines)


def test_a_log_of_one_item_has_no_links() -> None:
    links = fit_links(np.array([0]), np.array([0]), 1)
    assert links.starts.tolist() == [0, 0]
    assert not len(links.sources)
