"""Fit the sparse parts of a bundle on a catalogue, and on a log where there is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.links import Links, fit_links
from encoder.sparse_space import SparseParts
from encoder.text import terms
from encoder.title_terms import TitleTerms
from interest.bundle import SparsePart
from interest.item import Item

_NO_LINKS = Links(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


def fit_terms(titles: Sequence[str]) -> TitleTerms:
    """Fit title terms; none where no title holds a word, as in a log without texts."""
    if any(terms(title) for title in titles):
        return TitleTerms.fit(titles)
    return TitleTerms([], np.zeros(0, np.float32))


def fit_sparse(
    items: Sequence[Item], users: NDArray[np.int64], rows: NDArray[np.int64]
) -> SparseParts:
    """Fit title terms on a catalogue and links on the events that may be trained on.

    Args:
        users: (M,) of each event, user by user; none for a catalogue without a log.
        rows: (M,) row of its item.
    """
    fitted = fit_terms([item.title for item in items])
    linked, place = np.unique(rows, return_inverse=True)
    if not len(linked):
        return SparseParts(fitted, (), _NO_LINKS)
    links = fit_links(users, place, len(linked))
    return SparseParts(fitted, tuple(items[row].item_id for row in linked.tolist()), links)


def described(fitted: SparseParts, *, terms_decay: float, links_decay: float) -> SparsePart:
    """Describe fitted parts, and how fast a user's fade, for a bundle."""
    return SparsePart(
        fingerprint=fitted.fingerprint,
        n_terms=len(fitted.terms.vocabulary),
        n_linked=len(fitted.item_ids),
        terms_decay=terms_decay,
        links_decay=links_decay,
    )
