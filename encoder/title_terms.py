"""Sparse vectors of title terms, English and Chinese: TF-IDF fitted on one catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoder.text import terms
from interest.errors import BadInput


class SparseRows(NamedTuple):
    """Rows of a sparse matrix (compressed, CSR): row i is ``starts[i]:starts[i + 1]``."""

    starts: NDArray[np.int64]  # (N + 1,)
    terms: NDArray[np.int64]  # (nnz,) ascending in each row
    weights: NDArray[np.float32]  # (nnz,)


class TermRow(NamedTuple):
    """One row of such a matrix."""

    terms: NDArray[np.int64]
    weights: NDArray[np.float32]


def stacked(rows: Sequence[TermRow]) -> SparseRows:
    """Put rows under each other."""
    starts = np.cumsum([0, *(len(row.terms) for row in rows)])
    return SparseRows(
        starts,
        np.concatenate([np.zeros(0, np.int64), *(row.terms for row in rows)]),
        np.concatenate([np.zeros(0, np.float32), *(row.weights for row in rows)]),
    )


class TitleTerms(msgspec.Struct, frozen=True, eq=False):
    """A vocabulary and how rare each of its terms is.

    A title's weights are log(1 + tf) × idf, scaled to unit length; idf is ln(n / df), with n
    titles of which df hold the term (Spärck Jones 1972). A term that the fit did not see is passed
    over; so is one that stands in every title.
    """

    vocabulary: list[str]  # V terms, sorted
    idf: NDArray[np.float32]  # (V,)

    @classmethod
    def fit(cls, titles: Sequence[str]) -> TitleTerms:
        """Fit on the titles of a catalogue; titles of no word do not count.

        Raises:
            BadInput: no title holds a word.
        """
        found: Counter[str] = Counter()
        n_titles = 0
        for title in titles:
            bag = terms(title)
            found.update(bag.keys())
            n_titles += bool(bag)
        if not found:
            raise BadInput("title terms need items with titles")
        vocabulary = sorted(found)
        counts = np.array([found[term] for term in vocabulary])
        return cls(vocabulary, np.log(n_titles / counts).astype(np.float32))

    def encode(self, titles: Sequence[str]) -> SparseRows:
        """Give the sparse vectors of titles or queries: unit length, or empty for no known term."""
        row_of = self.rows_of_titles()
        return stacked([row_of(title) for title in titles])

    def rows_of_titles(self) -> Callable[[str], TermRow]:
        """Give a function that does the same for one title."""
        number_of = {term: number for number, term in enumerate(self.vocabulary)}

        def row_of(title: str) -> TermRow:
            bag = {number_of[term]: tf for term, tf in terms(title).items() if term in number_of}
            held = np.array(sorted(bag), np.int64)
            row = np.array([bag[number] for number in held.tolist()]) * self.idf[held]
            kept = row > 0  # none where the length is 0
            length = float(np.linalg.norm(row)) or 1.0
            return TermRow(held[kept], (row[kept] / length).astype(np.float32))

        return row_of

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give what has to be stored, by name: the vocabulary as UTF-8, one term a line."""
        text = "\n".join(self.vocabulary).encode()  # a term is letters and digits
        return {"vocabulary": np.frombuffer(text, np.uint8), "idf": self.idf}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TitleTerms:
        """Take what :meth:`arrays` gave.

        Raises:
            BadInput: an array is missing, or they do not fit together.
        """
        try:
            vocabulary = arrays["vocabulary"].tobytes().decode().split("\n")
            idf = arrays["idf"]
        except (KeyError, UnicodeDecodeError) as error:
            raise BadInput(f"title terms are damaged ({error})") from error
        if idf.shape != (len(vocabulary),):
            raise BadInput(f"title terms: {len(vocabulary)} terms, {idf.shape} weights")
        return cls(vocabulary, idf)
