"""Whitening: text vectors spread over their space, by the statistics of one catalogue.

Vectors of a language model share a direction and crowd along a few axes, so cosines say little
(Mu and Viswanath 2018, "All-but-the-Top"). Centring and scaling along the principal axes helps
(Su et al. 2021, "Whitening Sentence Representations"; for recommendation Zhang et al. 2024, "Are
ID Embeddings Necessary? Whitening Pre-trained Text Embeddings"). They multiply by λ^-½ (full
whitening), which makes noise on weak axes as loud as meaning on strong ones. We differ in two ways:
the power can be chosen (λ^-¼ is half-whitening), and eigenvalues are shrunk towards their mean by
D / (N + D) (after Ledoit and Wolf 2004, with a fixed intensity). A catalogue of fewer items than
dimensions says little of any axis: whitened in full, all its items would be equally far apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from interest.errors import BadInput
from interest.item import Item, unit
from interest.ports import ItemEncoder

#: Half of full whitening, which is 0.5.
HALF: Final = 0.25
# Axes that hold less of the variance than this part of the strongest are rounding.
_NOISE: Final = 1e-6


class Whitening(msgspec.Struct, frozen=True, eq=False):
    """A linear map that is fitted once and stored with the model: (v - mean) @ axes × scales.

    Shapes: D = length of a text vector, K = length of what comes out, at most D.
    """

    mean: NDArray[np.float32]  # (D,)
    axes: NDArray[np.float32]  # (D, K), columns of unit length, strongest first
    scales: NDArray[np.float32]  # (K,)

    @classmethod
    def fit(
        cls, vectors: NDArray[np.float32], *, dim: int | None = None, power: float = HALF
    ) -> Whitening:
        """Fit on the text vectors of a catalogue, (N, D).

        Args:
            vectors: rows of zeros (items that say nothing) are passed over.
            dim: axes to keep, the strongest; fewer where the vectors span fewer. None: all.
            power: scales are (shrunk) eigenvalue^-power.

        Raises:
            BadInput: fewer than two vectors differ, so there is nothing to spread.
        """
        spoken = vectors[vectors.any(axis=1)].astype(np.float64)
        if len(spoken) < 2 or not np.ptp(spoken, axis=0).any():
            raise BadInput("whitening needs items of at least two different texts")
        mean = spoken.mean(axis=0)
        values, axes = np.linalg.eigh(np.cov(spoken, rowvar=False))  # ascending
        values, axes = values[::-1], axes[:, ::-1]
        kept = int((values > _NOISE * values[0]).sum())
        kept = min(kept, dim or kept)
        few = vectors.shape[1] / (len(spoken) + vectors.shape[1])  # 0 for many items, up to 1
        values = (1 - few) * values + few * values.mean()
        return cls(
            mean.astype(np.float32),
            np.ascontiguousarray(axes[:, :kept], np.float32),
            (values[:kept] ** -power).astype(np.float32),
        )

    @property
    def dim(self) -> int:
        """Length of what comes out."""
        return len(self.scales)

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give unit vectors (N, K) for text vectors (N, D); a row of zeros stays one."""
        spread = unit((vectors - self.mean) @ self.axes * self.scales)
        spread[~vectors.any(axis=1)] = 0
        return spread

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Give what has to be stored, by name."""
        return {"mean": self.mean, "axes": self.axes, "scales": self.scales}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Whitening:
        """Take what :meth:`arrays` gave.

        Raises:
            BadInput: an array is missing, or their shapes do not fit together.
        """
        try:
            mean, axes, scales = arrays["mean"], arrays["axes"], arrays["scales"]
        except KeyError as error:
            raise BadInput(f"whitening without its array {error.args[0]}") from error
        if mean.ndim != 1 or scales.ndim != 1 or axes.shape != (len(mean), len(scales)):
            raise BadInput(
                f"whitening of shapes {mean.shape}, {axes.shape}, {scales.shape}, "
                "expected (D,), (D, K), (K,)"
            )
        return cls(mean, axes, scales)


class WhitenedItemEncoder:
    """Encodes items and queries into the whitened space; as safe for threads as what it wraps.

    Args:
        texts: gives the text vectors that the whitening was fitted on.
    """

    def __init__(self, texts: ItemEncoder, whitening: Whitening) -> None:
        if texts.dim != len(whitening.mean):
            raise BadInput(
                f"whitening of {len(whitening.mean)} dimensions, the text model has {texts.dim}; "
                "fit it again with this model"
            )
        self._texts = texts
        self._whitening = whitening

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._whitening.dim

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Encode items; (N, K), unit rows, zeros for an item whose title says nothing.

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
        """
        return self._whitening.apply(self._texts.encode_items(items))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; (N, K), unit rows; an empty text gives a row of zeros.

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
        """
        return self._whitening.apply(self._texts.encode_texts(texts))
