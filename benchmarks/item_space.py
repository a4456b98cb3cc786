"""Items for the retrieval benchmark, as the vectors of a shop lie: titles through MiniLM.

The sample's 2,460 titles are encoded once. Further items are mixtures of two titles with a little
noise, so that they lie between real ones: isotropic noise in 384 dimensions has no neighbours, and
an index over it says nothing of a shop. Queries are means of a few items, as user vectors are.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoder.factory import load_encoders
from interest.item import EncodedItem, Item, unit
from interest.settings import Settings
from interest_cli.convert import SAMPLE_FOLDER
from interest_cli.files import RecordFile, read_items

N_CATEGORIES: Final = 20
_BATCH: Final = 256
_MIXED: Final = 0.6
_NOISE: Final = 0.1
_PER_QUERY: Final = 5


def title_vectors() -> NDArray[np.float32]:
    """Encode the titles of the sample; (N, D) unit rows."""
    file = RecordFile(SAMPLE_FOLDER / "items.jsonl.gz", Item, print)
    items = list(read_items(file, on_invalid=print))
    encoder = load_encoders(Settings()).items
    return np.concatenate(
        [encoder.encode_items(items[i : i + _BATCH]) for i in range(0, len(items), _BATCH)]
    )


def narrowed(titles: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Give the titles in their ``dim`` principal directions; (N, dim) unit rows."""
    if dim == titles.shape[1]:
        return titles
    directions = np.linalg.eigh(titles.T @ titles)[1][:, -dim:]
    return unit(titles @ directions)


def item_vectors(titles: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Give ``n`` items, the real ones first; (n, D) unit rows."""
    rng = np.random.default_rng(1)
    n_mixed = max(0, n - len(titles))
    pairs = rng.integers(len(titles), size=(n_mixed, 2))
    noise = unit(rng.normal(size=(n_mixed, titles.shape[1])))
    share = rng.uniform(0, _MIXED, size=(n_mixed, 1))
    mixed = unit(titles[pairs[:, 0]] + share * titles[pairs[:, 1]] + _NOISE * noise)
    return np.concatenate([titles[:n], mixed])


def query_vectors(vectors: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Give ``n`` queries, each the mean of some items; (n, D) unit rows."""
    rng = np.random.default_rng(2)
    chosen = rng.integers(len(vectors), size=(n, _PER_QUERY))
    return unit(vectors[chosen].mean(axis=1))


def encoded_items(vectors: NDArray[np.float32], first: int = 0) -> list[EncodedItem]:
    """Give the items of these vectors, counted from ``first``; item i is of category i mod 20."""
    return [
        EncodedItem(
            item=Item(
                item_id=f"item-{i}",
                title=f"the title of item {i}",
                categories=(f"category-{i % N_CATEGORIES}",),
                price=float(i % 100),
            ),
            vector=vector,
        )
        for i, vector in enumerate(vectors, start=first)
    ]
