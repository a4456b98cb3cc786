"""The port ``ItemEncoder`` over a text model, with a cache for queries, and over its features."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoder.text_encoder import TextEncoder
from encoder.text_features import FeatureMaker, TextFeatures
from interest.item import Item, unit
from interest.ports import ItemEncoder

#: 15 MB at 384 dimensions.
CACHED_QUERIES: Final = 10_000


class TextItemEncoder:
    """Encodes an item by its title and description; safe to call from several threads."""

    def __init__(self, text_encoder: TextEncoder, cached_queries: int = CACHED_QUERIES) -> None:
        self._text_encoder = text_encoder
        self._cached_queries = cached_queries
        # Least recently used first; by digest, since a query may be a novel.
        self._cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._text_encoder.dim

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Encode items; (N, D), unit rows, row i belongs to items[i].

        Items change rarely and are stored encoded, so they are not cached here. An item whose
        title holds nothing but invisible characters gives a row of zeros.

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
        """
        # Variants of a product often share their text.
        places = {text: i for i, text in enumerate(dict.fromkeys(item.text for item in items))}
        rows = self._text_encoder.encode(list(places))
        return rows[[places[item.text] for item in items]]

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; (N, D), unit rows; an empty text gives a row of zeros.

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
        """
        keys = [
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            for text in texts
        ]
        rows: dict[bytes, NDArray[np.float32]] = {}
        with self._lock:
            for key in keys:
                if (row := self._cache.get(key)) is not None:
                    self._cache.move_to_end(key)
                    rows[key] = row
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in rows}
        if missing:
            fresh = self._text_encoder.encode(list(missing.values()))  # (N missing, D)
            # Copies: a view would keep the whole batch in memory as long as one row is cached.
            rows.update((key, row.copy()) for key, row in zip(missing, fresh, strict=True))
            with self._lock:
                self._cache.update((key, rows[key]) for key in missing)
                while len(self._cache) > self._cached_queries:
                    self._cache.popitem(last=False)
        answer = np.zeros((len(texts), self.dim), np.float32)
        for i, key in enumerate(keys):
            answer[i] = rows[key]
        return answer


class FeatureItemEncoder:
    """Encodes an item by features of its text vector and title.

    Args:
        texts: gives the text vectors that the features were fitted on.
    """

    def __init__(self, texts: ItemEncoder, fitted: TextFeatures) -> None:
        self._texts = texts
        self._make = FeatureMaker(fitted)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._make.fitted.dim

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Encode items; (N, D), unit rows; zeros where a text says nothing.

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
        """
        vectors = self._texts.encode_items(items)
        return unit(self._make(vectors, [item.title for item in items]))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; (N, D), unit rows; an empty text gives a row of zeros.

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
        """
        return unit(self._make(self._texts.encode_texts(texts), texts))
