"""Weights of the retrieval paths, chosen on validation users.

What a path adds to the cosine is computed for the whole catalogue, as an exact search would. Decay
and weight of the terms are chosen first, those of the links beside them, then both weights once
more; then the weights of the second ranking, over the candidates that the chosen ``hybrid`` gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.metrics import ndcg as ndcg_of
from encoder.sparse_fit import described
from encoder.sparse_product import SparseProduct, rows_between
from encoder.sparse_space import SparseParts, SparseSpace
from encoder.title_terms import SparseRows
from encoder.training.ranking import HeldOut, K, ndcg
from interest.bundle import DecayParameters, PathWeights, RetrievalPaths, SparsePart
from interest.encoded_items import EncodedItems
from interest.event import EventType
from interest.window import BehaviourWindow

DECAYS: Final = (0.5, 0.65, 0.8, 0.9)
WEIGHTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
LAST_WEIGHTS: Final = (0.0, 0.1, 0.2, 0.3, 0.5)
#: A weight is tried again by these factors when the others are chosen.
_AROUND: Final = (0.6, 0.8, 1.0, 1.25, 1.6)
#: Candidates of the second ranking, as `store.paths` takes them.
_CANDIDATES: Final = 200
#: Scores of one kind that are looked at for a choice: less than a second for each that is tried.
_MAX_SCORES: Final = 60_000_000
_LEAST_USERS: Final = 1_000
_AWAY: Final = (EventType.REMOVE, EventType.RETURN)

Floats = NDArray[np.float32]
C = TypeVar("C")


class Served(NamedTuple):
    """Validation users and the catalogue as the bundle encodes them.

    Shapes: n users, V items, D numbers.
    """

    windows: Sequence[BehaviourWindow]  # n
    users: Floats  # (n, D)
    items: EncodedItems  # V, in the order of the rows that ``held_out`` names
    held_out: HeldOut

    def some(self) -> Served:
        """Give the first users, as many as a choice looks at."""
        n = max(_LEAST_USERS, _MAX_SCORES // max(1, len(self.items.vectors)))
        targets, masked, borders = self.held_out
        borders = borders[: n + 1]
        held_out = HeldOut(targets[:n], masked[: int(borders[-1])], borders)
        return Served(self.windows[:n], self.users[:n], self.items, held_out)

    def cosines(self, part: slice) -> Floats:
        """Give what ``dense`` scores, (m, V)."""
        return self.users[part] @ self.items.vectors.T

    def last(self) -> NDArray[np.int64]:
        """Give the row of each user's newest item that does not push it away; -1 for none."""
        return np.array([self._last(window) for window in self.windows], np.int64)

    def _last(self, window: BehaviourWindow) -> int:
        for event in reversed(window.events):
            if event.item_id is not None and event.type not in _AWAY:
                return self.items.rows.get(event.item_id, -1)
        return -1


class ChosenPaths(NamedTuple):
    """What a bundle says of its paths, and NDCG@10 of each on the users they were chosen on."""

    sparse: SparsePart
    paths: RetrievalPaths
    ndcg: dict[str, float]


def choose_paths(served: Served, fitted: SparseParts, decay: DecayParameters) -> ChosenPaths:
    """Choose decays and weights by mean NDCG@10; of equal ones the first that is tried.

    Args:
        decay: of it everything counts but the decay per position.
    """
    asked = served.some()
    terms: dict[float, _Beside] = {}
    links: dict[float, _Beside] = {}
    products: list[SparseProduct] = []
    for each in DECAYS:
        space = SparseSpace(fitted, described(fitted, terms_decay=each, links_decay=each), decay)
        if not products:
            products = [SparseProduct(part) for part in space.item_parts(asked.items.items_by_row)]
        of_terms, of_links = space.encode_parts(asked.windows, asked.items)
        terms[each], links[each] = _Beside(products[0], of_terms), _Beside(products[1], of_links)

    def with_terms(part: slice) -> Callable[[tuple[float, float]], Floats]:
        dense = asked.cosines(part)
        scores = {each: beside.scores(part) for each, beside in terms.items()}
        return lambda choice: dense + np.float32(choice[1]) * scores[choice[0]]

    (terms_decay, terms_weight), _ = _best(asked, _decays_and_weights(), with_terms)
    chosen_terms = terms[terms_decay]

    def with_links(part: slice) -> Callable[[tuple[float, float]], Floats]:
        both = asked.cosines(part) + np.float32(terms_weight) * chosen_terms.scores(part)
        scores = {each: beside.scores(part) for each, beside in links.items()}
        return lambda choice: both + np.float32(choice[1]) * scores[choice[0]]

    (links_decay, links_weight), _ = _best(asked, _decays_and_weights(), with_links)
    chosen_links = links[links_decay]

    def with_both(part: slice) -> Callable[[tuple[float, float]], Floats]:
        dense = asked.cosines(part)
        beside = (chosen_terms.scores(part), chosen_links.scores(part))
        return lambda choice: (
            dense + np.float32(choice[0]) * beside[0] + np.float32(choice[1]) * beside[1]
        )

    around = itertools.product(_around(terms_weight), _around(links_weight))
    (terms_weight, links_weight), hybrid_ndcg = _best(asked, around, with_both)
    _, dense_ndcg = _best(asked, [(0.0, 0.0)], with_both)
    hybrid = PathWeights(terms=terms_weight, links=links_weight)
    rerank, rerank_ndcg = _rerank(asked, hybrid, chosen_terms, chosen_links)
    by_path = {"dense": dense_ndcg, "hybrid": hybrid_ndcg, "rerank": rerank_ndcg}
    paths = RetrievalPaths(
        hybrid=hybrid,
        rerank=rerank,
        best=max(("dense", "hybrid", "rerank"), key=lambda path: by_path[path]),
    )
    sparse = described(fitted, terms_decay=terms_decay, links_decay=links_decay)
    return ChosenPaths(sparse, paths, by_path)


class _Beside:
    """One part of the sparse dot product, of some users with the catalogue."""

    def __init__(self, items: SparseProduct, users: SparseRows) -> None:
        self._items = items
        self._users = users

    def scores(self, part: slice) -> Floats:
        return self._items.scores(rows_between(self._users, part))


def _decays_and_weights() -> Iterator[tuple[float, float]]:
    return itertools.product(DECAYS, WEIGHTS)


def _around(weight: float) -> list[float]:
    return [round(weight * factor, 4) for factor in _AROUND] if weight else [0.0]


def _best(
    asked: Served, choices: Iterable[C], scored: Callable[[slice], Callable[[C], Floats]]
) -> tuple[C, float]:
    """Give the choice with the best mean NDCG@10, and that.

    Args:
        scored: for some users gives what scores the catalogue by a choice, (m, V), anew each time.
    """
    tried = list(choices)
    totals = np.zeros(len(tried))
    for part in asked.held_out.chunks(len(asked.items.vectors)):
        scores_of = scored(part)
        for i, choice in enumerate(tried):
            totals[i] += ndcg(scores_of(choice), asked.held_out, part).sum()
    best = int(np.argmax(totals))
    return tried[best], float(totals[best]) / max(1, len(asked.users))


def _rerank(
    asked: Served, hybrid: PathWeights, terms: _Beside, links: _Beside
) -> tuple[PathWeights, float]:
    """Choose the weights of the second ranking, over the best candidates of ``hybrid``."""
    tried = [
        PathWeights(terms=by_terms, links=by_links, last=last)
        for last, by_terms, by_links in itertools.product(
            LAST_WEIGHTS, _around(hybrid.terms), _around(hybrid.links)
        )
    ]
    last_row = asked.last()
    vectors, held_out = asked.items.vectors, asked.held_out
    n = min(_CANDIDATES, len(vectors))
    totals = np.zeros(len(tried))
    for part in held_out.chunks(len(vectors)):
        dense, by_terms, by_links = asked.cosines(part), terms.scores(part), links.scores(part)
        scores = dense + np.float32(hybrid.terms) * by_terms
        scores += np.float32(hybrid.links) * by_links
        held_out.mask(scores, part)
        best = np.argpartition(-scores, n - 1, axis=1)[:, :n]  # (m, n)
        left_out = np.isneginf(np.take_along_axis(scores, best, 1))
        rows = last_row[part]
        last = (vectors[rows] * (rows >= 0)[:, np.newaxis]) @ vectors.T
        features = [np.take_along_axis(each, best, 1) for each in (dense, by_terms, by_links, last)]
        is_target = best == held_out.targets[part][:, np.newaxis]
        for i, weights in enumerate(tried):
            summed = (
                features[0]
                + np.float32(weights.terms) * features[1]
                + np.float32(weights.links) * features[2]
                + np.float32(weights.last) * features[3]
            )
            summed[left_out] = -np.inf
            totals[i] += _gains(summed, is_target).sum()
    place = int(np.argmax(totals))
    return tried[place], float(totals[place]) / max(1, len(asked.users))


def _gains(scores: Floats, is_target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give NDCG@10 of the users whose target is among the candidates."""
    users, places = np.nonzero(is_target)
    own = scores[users, places][:, np.newaxis]
    better = (scores[users] > own).sum(axis=1)
    tied = (scores[users] == own).sum(axis=1) - 1
    return ndcg_of(better + tied / 2, K)
