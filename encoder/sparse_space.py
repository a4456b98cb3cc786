"""Items and windows as sparse vectors: title terms, and links between items.

The user's terms are those of the window's items, pooled by decay, the user's links the window's
items themselves; so the dot product with an item is how well its title fits, plus the links to it
from what the user had. Each of the two parts has unit length in a user. See
:mod:`interest.sparse` for the dimensions.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import safetensors
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from encoder.links import Links
from encoder.sparse_decay import NO_ROWS, pooled
from encoder.title_terms import SparseRows, TermRow, TitleTerms, stacked
from encoder.weighed import Weighed, Weights
from interest.bundle import DecayParameters, SparsePart
from interest.encoded_items import EncodedItems
from interest.errors import BadInput
from interest.item import EncodedItem, Item
from interest.sparse import EMPTY, LINKS_FROM, SparseVector
from interest.window import BehaviourWindow

_FORMAT: Final = "1"
#: Key of the JSON in the file's metadata: format, vocabulary and the ids of linked items.
_KEY: Final = "interest-sparse"
#: Titles whose terms are kept at hand: 20 MB.
_CACHED: Final = 20_000


class SparseParts(NamedTuple):
    """What was fitted: terms of titles, and links between the items of ``item_ids``."""

    terms: TitleTerms
    item_ids: tuple[str, ...]
    links: Links

    @property
    def fingerprint(self) -> str:
        """The hash of all numbers, terms and ids."""
        digest = hashlib.blake2b(
            json.dumps([self.terms.vocabulary, self.item_ids]).encode(), digest_size=16
        )
        for name, array in sorted(self._arrays().items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        starts, sources, weights = self.links
        return {
            "idf": self.terms.idf,
            "starts": starts.astype(np.int64),
            "sources": sources,
            "weights": weights,
        }

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        header = {
            "format": _FORMAT,
            "vocabulary": self.terms.vocabulary,
            "item_ids": self.item_ids,
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        save_file(tensors, path, metadata={_KEY: json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> SparseParts:
        """Read what :meth:`save` wrote.

        Raises:
            BadInput: no such file, another format, or damaged.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[_KEY])
            if header["format"] != _FORMAT:
                raise BadInput(
                    f"{path} has format {header['format']} of sparse parts, not {_FORMAT}"
                )
            arrays = {name: tensor.numpy() for name, tensor in load_file(path).items()}
            links = Links(arrays["starts"], arrays["sources"], arrays["weights"])
            found = cls(
                TitleTerms(list(header["vocabulary"]), arrays["idf"]),
                tuple(header["item_ids"]),
                links,
            )
            sizes = (len(arrays["idf"]), len(links.starts), len(links.sources))
            if sizes != (len(header["vocabulary"]), len(found.item_ids) + 1, len(links.weights)):
                raise ValueError("arrays of sizes that do not fit together")
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            reason = next(iter(str(error).splitlines()), "")
            raise BadInput(
                f"{path} cannot be read as sparse parts ({type(error).__name__}: {reason}); copy "
                "the bundle again"
            ) from error
        return found


class SparseSpace:
    """The port ``SparseEncoder`` over fitted parts; safe to call from several threads.

    What pushes away is left to the dense vector: a term of a returned shirt ("cotton") says little
    against others. What it took back counts no more here, too.

    Args:
        part: of it the decays per position count.
        decay: everything else of an event's weight.
    """

    def __init__(self, fitted: SparseParts, part: SparsePart, decay: DecayParameters) -> None:
        self._links = fitted.links
        self._row_of = {item_id: row for row, item_id in enumerate(fitted.item_ids)}
        self._terms_of = functools.lru_cache(_CACHED)(fitted.terms.rows_of_titles())
        self._weights = Weights(decay)
        self._terms_decay = replace(decay, position_decay=part.terms_decay)
        self._links_decay = replace(decay, position_decay=part.links_decay)

    def encode_items(self, items: Sequence[Item]) -> list[SparseVector]:
        """Give the terms of each title and the links to each item; see ``SparseEncoder``."""
        return [_vector(self._terms_of(item.title), self._links_to(item.item_id)) for item in items]

    def item_parts(self, items: Sequence[Item]) -> tuple[SparseRows, SparseRows]:
        """Give both parts of items apart, one row each, as :meth:`encode_parts` does of windows."""
        return (
            stacked([self._terms_of(item.title) for item in items]),
            stacked([self._links_to(item.item_id) for item in items]),
        )

    def _links_to(self, item_id: str) -> TermRow:
        row = self._row_of.get(item_id)
        if row is None:
            return _NO_ROW
        part = slice(*self._links.starts[row : row + 2].tolist())
        return TermRow(self._links.sources[part].astype(np.int64), self._links.weights[part])

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> list[SparseVector]:
        """Give the terms and the links of each window; see ``SparseEncoder``."""
        terms, links = self.encode_parts(windows, items)
        return [_vector(_row(terms, i), _row(links, i)) for i in range(len(windows))]

    def encode_parts(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> tuple[SparseRows, SparseRows]:
        """Give both parts apart, one row a window: terms by number, links by row of their item."""
        if not windows:
            return NO_ROWS, NO_ROWS
        events = self._weights.of(windows)
        numbers, places = np.unique(events.item, return_inverse=True)
        names = [events.names[number] if number else "" for number in numbers.tolist()]
        matrix, rows = self._terms(names, places, events, EncodedItems.of(items))
        terms = pooled(matrix, rows, events, len(windows), self._terms_decay)
        linked = np.array([self._row_of.get(name, -1) for name in names], np.int64)
        alone = SparseRows(
            np.arange(len(names) + 1), np.maximum(linked, 0), np.ones(len(names), np.float32)
        )
        held = np.where(linked[places] >= 0, places, -1)
        return terms, pooled(alone, held, events, len(windows), self._links_decay)

    def _terms(
        self,
        names: Sequence[str],
        places: NDArray[np.int64],
        events: Weighed,
        items: EncodedItems,
    ) -> tuple[SparseRows, NDArray[np.int64]]:
        """Give the terms of titles and of searches, and the row of each event; -1 for none."""
        found: list[TermRow] = []
        for name in names:
            row = items.rows.get(name)
            title = "" if row is None else items.items_by_row[row].title
            found.append(self._terms_of(title) if title else _NO_ROW)
        rows = places.astype(np.int64)
        for event, text in events.text.items():
            rows[event] = len(found)
            found.append(self._terms_of(text))
        return stacked(found), rows


_NO_ROW: Final = TermRow(np.zeros(0, np.int64), np.zeros(0, np.float32))


def _row(rows: SparseRows, i: int) -> TermRow:
    part = slice(*rows.starts[i : i + 2].tolist())
    return TermRow(rows.terms[part], rows.weights[part])


def _vector(terms: TermRow, links: TermRow) -> SparseVector:
    if not len(terms.terms) and not len(links.terms):
        return EMPTY
    return SparseVector(
        np.concatenate([terms.terms, links.terms + LINKS_FROM]).astype(np.uint32),
        np.concatenate([terms.weights, links.weights]),
    )
