from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.text_features import (
    FeatureMaker,
    TextFeatures,
    fit_text_features,
    load_text_features,
    save_text_features,
)
from interest.errors import BadInput

RNG = np.random.default_rng(0)
#: A narrow cone: a common direction, and axes of very different strength.
VECTORS = (RNG.normal(size=(300, 10)) * np.geomspace(1, 0.01, 10) + 2).astype(np.float32)
WORDS = ["red", "blue", "mug", "cup", "lamp", "brass", "cotton", "shirt"]
TITLES = [" ".join(RNG.choice(WORDS, 3, replace=False)) for _ in range(300)]


def fitted(n_dense: int = 6, n_terms: int = 4) -> TextFeatures:
    return fit_text_features(VECTORS, TITLES, n_dense=n_dense, n_terms=n_terms, seed=0)


def cosines(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors @ vectors.T


def test_half_whitening_leaves_the_square_root_of_each_axis() -> None:
    found = fitted()
    spread = (VECTORS - found.mean) @ found.axes
    covariance = np.cov(spread.T, bias=True)
    values = np.sort(np.linalg.eigvalsh(np.cov(VECTORS.T, bias=True)))[::-1]
    assert np.allclose(covariance, np.diag(np.sqrt(values[:6])), atol=1e-4)


def test_the_cone_is_opened() -> None:
    narrow = cosines(VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True))
    assert narrow.mean() > 0.8
    assert abs(cosines(FeatureMaker(fitted()).dense(VECTORS)).mean()) < 0.05


def test_titles_that_share_rare_terms_are_near() -> None:
    terms = FeatureMaker(fitted(n_terms=8)).terms(["red mug", "mug red", "brass lamp", "unheard"])
    near = cosines(terms)
    assert np.isclose(near[0, 1], 1, atol=1e-5)
    assert near[0, 2] < 0.3
    assert not terms[3].any(), "no term is known"


def test_terms_are_the_singular_vectors_of_the_catalogue() -> None:
    """Held against a dense decomposition: cosines of half-whitened rows are the same."""
    found = fitted(n_terms=4)
    exact = fitted(n_terms=8)
    x = FeatureMaker(exact)
    assert exact.term_axes.shape == (8, 8)
    unscaled = np.linalg.norm(exact.term_axes, axis=0)
    assert (np.diff(unscaled) > -1e-6).any()
    assert np.allclose(np.abs(found.term_axes), np.abs(exact.term_axes[:, :4]), atol=1e-3)
    assert np.isfinite(x.terms(TITLES)).all()


def test_no_text_gives_zeros_and_one_item_changes_nothing_for_others() -> None:
    make = FeatureMaker(fitted())
    with_none = np.concatenate([VECTORS[:2], np.zeros((1, 10), np.float32)])
    made = make(with_none, [*TITLES[:2], ""])
    assert not made[2].any()
    assert made.shape == (3, 10)
    assert np.allclose(made[:2], make(VECTORS[:2], TITLES[:2]), atol=1e-6)


def test_a_catalogue_gives_no_more_axes_than_it_spans() -> None:
    two = fit_text_features(VECTORS[:3], ["a b"] * 3, n_dense=9, n_terms=9, seed=0)
    assert two.n_dense == 2
    assert two.dim <= 3
    none = fit_text_features(
        np.zeros((3, 10), np.float32), ["", "", ""], n_dense=9, n_terms=9, seed=0
    )
    assert none.dim == 1
    assert not FeatureMaker(none)(np.zeros((3, 10), np.float32), ["", "", ""]).any()


def test_features_come_back_from_their_file_and_the_fingerprint_is_theirs(tmp_path: Path) -> None:
    found = fitted()
    save_text_features(tmp_path / "f", found)
    loaded = load_text_features(tmp_path / "f")
    assert loaded.vocabulary == found.vocabulary
    assert loaded.fingerprint == found.fingerprint
    assert np.array_equal(
        FeatureMaker(loaded)(VECTORS, TITLES), FeatureMaker(found)(VECTORS, TITLES)
    )
    assert fitted(n_terms=3).fingerprint != found.fingerprint
    assert found._replace(vocabulary=found.vocabulary[::-1]).fingerprint != found.fingerprint


def test_a_file_that_is_no_features_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="copy the bundle again"):
        load_text_features(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BadInput, match="copy the bundle again"):
        load_text_features(tmp_path / "text")
    save_text_features(tmp_path / "cut", fitted()._replace(vocabulary=("one",)))
    with pytest.raises(BadInput, match="do not fit together"):
        load_text_features(tmp_path / "cut")
