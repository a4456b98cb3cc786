"""The rows that can be evaluated without training, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoder.decay import DecayUserEncoder
from encoder.evaluation.baselines import CoOccurrence, Ease, Popularity
from encoder.evaluation.dataset import Dataset
from encoder.evaluation.protocols import Split
from encoder.evaluation.ranking import Ranker
from encoder.evaluation.vectors import LastItem, TermsRanker, VectorRanker, WeightedSum
from encoder.links import EASE_MAX_ITEMS
from encoder.sparse_decay import SparseDecay
from encoder.title_terms import TitleTerms
from encoder.whitening import WhitenedItemEncoder, Whitening
from encoder.zero_shot import DAY_MS, DECAY, DIM, POWER, SPARSE_WEIGHT
from interest.bundle import DecayParameters
from interest.encoded_items import EncodedItems
from interest.errors import BadInput
from interest.ports import ItemEncoder

#: All events of a window alike.
_MEAN: Final = DecayParameters(position_decay=1.0, half_life_ms=10**9 * DAY_MS)


class Rows:
    """Makes the rankers of a dataset; what several rows share is made once.

    Args:
        texts: gives the vectors of queries; asked only for windows that hold some.
        vectors: gives the text vectors of the catalogue, (N, D), zeros for an item without title.
            Called for the rows that need them.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        texts: Callable[[], ItemEncoder],
        vectors: Callable[[], NDArray[np.float32]],
    ) -> None:
        self._dataset = dataset
        self._split = split
        self._texts = functools.cache(texts)
        self._vectors = functools.cache(vectors)
        self._items = dataset.catalogue()
        self._has_text = any(title.strip() for title in dataset.titles)

    def why_not(self, name: str) -> str:
        """Say why a row cannot be made of this dataset; empty where it can."""
        if name in TEXT_ROWS and not self._has_text:
            return "the items have no titles"
        if name == "ease" and self._dataset.n_items > EASE_MAX_ITEMS:
            return f"{self._dataset.n_items:,} items, its inverse takes up to {EASE_MAX_ITEMS:,}"
        return ""

    def ranker(self, name: str) -> Ranker:
        """Fit a row.

        Raises:
            BadInput: there is no such row, or it cannot be made of this dataset.
            EncoderUnavailable: the text model cannot be loaded, or its device failed.
        """
        make = ROWS.get(name)
        if make is None:
            raise BadInput(f"no row {name}; there are {', '.join(ROWS)}")
        if reason := self.why_not(name):
            raise BadInput(f"row {name} cannot be made: {reason}")
        return make(self)

    def popularity(self) -> Ranker:
        return Popularity(self._dataset, self._split)

    def co_occurrence(self) -> Ranker:
        return CoOccurrence(self._dataset, self._split)

    def ease(self) -> Ranker:
        return Ease(self._dataset, self._split)

    def mean_of_items(self) -> Ranker:
        """Give the mean of the items' text vectors as they are: the usual running mean."""
        return self._dense(self._texts(), self._vectors(), _MEAN)

    def last_item(self) -> Ranker:
        return LastItem(self.mean_of_items())

    def zero_shot(
        self, decay: DecayParameters = DECAY, dim: int | None = DIM, power: float = POWER
    ) -> Ranker:
        """Give `decay` over whitened text vectors."""
        whitening = Whitening.fit(self._vectors(), dim=dim, power=power)
        return self._dense(
            WhitenedItemEncoder(self._texts(), whitening), whitening.apply(self._vectors()), decay
        )

    def title_terms(self, decay: DecayParameters = DECAY) -> Ranker:
        """Give `decay` over TF-IDF of titles."""
        titles = self._dataset.titles
        items = TitleTerms.fit(titles).encode(titles)
        row_of = {item_id: row for row, item_id in enumerate(self._dataset.item_ids)}
        return TermsRanker(SparseDecay(items, row_of, decay), items)

    def zero_shot_sparse(self) -> Ranker:
        """Give both, fused by a constant weight."""
        return WeightedSum([(self.zero_shot(), 1.0), (self.title_terms(), SPARSE_WEIGHT)])

    def _dense(
        self, items: ItemEncoder, vectors: NDArray[np.float32], decay: DecayParameters
    ) -> Ranker:
        known = np.flatnonzero(vectors.any(axis=1))
        encoded = EncodedItems([self._items[row] for row in known.tolist()], vectors[known])
        return VectorRanker(DecayUserEncoder(items, decay), vectors, encoded)


#: Every row, in the order of the table.
ROWS: Final[dict[str, Callable[[Rows], Ranker]]] = {
    "popularity": Rows.popularity,
    "co-occurrence": Rows.co_occurrence,
    "ease": Rows.ease,
    "mean-of-items": Rows.mean_of_items,
    "last-item": Rows.last_item,
    "title-terms": Rows.title_terms,
    "zero-shot": Rows.zero_shot,
    "zero-shot-sparse": Rows.zero_shot_sparse,
}
#: Those that need titles.
TEXT_ROWS: Final = frozenset(ROWS) - {"popularity", "co-occurrence", "ease"}


def chosen(names: Sequence[str]) -> list[str]:
    """Give the rows of a request in the order of the table; all where nothing is asked for.

    Raises:
        BadInput: there is no such row.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise BadInput(f"no row {unknown[0]}; there are {', '.join(ROWS)}")
    return [name for name in ROWS if name in names or not names]
