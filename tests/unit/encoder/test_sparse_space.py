"""Items and windows as sparse vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoder.sparse_fit import described, fit_sparse, fit_terms
from encoder.sparse_space import SparseParts, SparseSpace
from interest.bundle import DecayParameters
from interest.encoded_items import EncodedItems
from interest.errors import BadInput
from interest.item import Item
from interest.sparse import LINKS_FROM, SparseVector, dots
from tests.unit.encoder.windows import window

TITLES = ["red mug", "blue mug", "brass lamp", "red lamp", ""]
ITEMS = [Item(item_id=f"i{n}", title=title or " - ") for n, title in enumerate(TITLES)]
KNOWN = EncodedItems(ITEMS, np.zeros((5, 2), np.float32))
USERS = np.array([0, 0, 1, 1, 2, 2, 2])
ROWS = np.array([0, 1, 0, 1, 0, 2, 3])
DECAY = DecayParameters(position_decay=1.0, half_life_ms=10**15)


@pytest.fixture(scope="module")
def fitted() -> SparseParts:
    return fit_sparse(ITEMS, USERS, ROWS)


def space(fitted: SparseParts, terms_decay: float = 0.5, links_decay: float = 0.25) -> SparseSpace:
    part = described(fitted, terms_decay=terms_decay, links_decay=links_decay)
    return SparseSpace(fitted, part, DECAY)


def links_of(vector: SparseVector) -> dict[int, float]:
    linked = vector.dims >= LINKS_FROM
    dims = (vector.dims[linked] - LINKS_FROM).tolist()
    return dict(zip(dims, vector.values[linked].tolist(), strict=True))


def test_a_user_s_links_are_the_items_of_the_window_by_their_own_decay(
    fitted: SparseParts,
) -> None:
    asked = window(("click", "i0"), ("click", "i1"))
    [user] = space(fitted).encode([asked], KNOWN)
    length = np.hypot(1, 0.25)
    assert links_of(user) == pytest.approx({0: 0.25 / length, 1: 1 / length})


def test_the_dot_product_is_that_of_the_terms_and_the_links_from_the_window(
    fitted: SparseParts,
) -> None:
    asked = window(("click", "i0"), ("click", "i3"))
    model = space(fitted)
    [user] = model.encode([asked], KNOWN)
    items = model.encode_items(ITEMS)
    rows = fitted.terms.encode(TITLES)
    terms = np.zeros((5, len(fitted.terms.vocabulary)))
    for i in range(5):
        part = slice(*rows.starts[i : i + 2])
        terms[i, rows.terms[part]] = rows.weights[part]
    pooled = 0.5 * terms[0] + terms[3]
    links = np.zeros((5, 5))  # to, from
    for i in range(4):
        part = slice(*fitted.links.starts[i : i + 2])
        links[i, fitted.links.sources[part]] = fitted.links.weights[part]
    had = np.array([0.25, 0, 0, 1, 0])
    expected = 2 * terms @ pooled / np.linalg.norm(pooled) + 3 * links @ had / np.linalg.norm(had)
    assert dots(user.weighed(2, 3), items) == pytest.approx(expected, abs=1e-6)


def test_a_search_counts_by_its_text_and_an_unknown_item_by_its_links(fitted: SparseParts) -> None:
    asked = [
        window(("search", None, {"text": "brass"})),
        window(("click", "i0")),
        window(("click", "gone")),
    ]
    nothing = EncodedItems([], np.zeros((0, 2), np.float32))
    searched, linked, unknown = space(fitted).encode(asked, nothing)
    assert [fitted.terms.vocabulary[dim] for dim in searched.dims] == ["brass"]
    assert links_of(linked) == {0: 1.0}
    assert linked.n == 1
    assert unknown.n == 0


def test_parts_come_back_whole_and_a_byte_that_differs_shows(
    fitted: SparseParts, tmp_path: Path
) -> None:
    path = tmp_path / "sparse.safetensors"
    fitted.save(path)
    assert SparseParts.load(path).fingerprint == fitted.fingerprint
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert SparseParts.load(path).fingerprint != fitted.fingerprint
    path.write_bytes(raw[:-40])
    with pytest.raises(BadInput, match="copy the bundle again"):
        SparseParts.load(path)


def test_a_catalogue_without_words_has_no_terms() -> None:
    assert fit_terms(["", " - "]).vocabulary == []
    fitted = fit_sparse(ITEMS[4:], np.zeros(0, np.int64), np.zeros(0, np.int64))
    [vector] = space(fitted).encode_items(ITEMS[4:])
    assert vector.n == 0
