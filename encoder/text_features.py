"""What an item's text says, as one vector fitted on a catalogue: dense meaning beside its terms.

The dense part is the language model's vector, centred and half-whitened: sentence vectors lie in a
narrow cone, and dividing each principal axis by the fourth root of its eigenvalue spreads them
without blowing up the weak ones (whitening: Su et al. 2021, equation 5, there by the square root).
The terms are TF-IDF of title words, reduced by a truncated singular value decomposition (latent
semantic analysis, Deerwester et al. 1990) and half-whitened alike.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from encoder.text import terms
from interest.errors import BadInput
from interest.item import unit

_FORMAT: Final = "1"
#: Key of the JSON in the file's metadata: format and vocabulary.
_KEY: Final = "interest-text-features"
#: Terms that one item alone has connect it to none.
_MIN_ITEMS: Final = 2
_MAX_TERMS: Final = 50_000
#: Axes whose eigenvalue is this small beside the first hold rounding alone.
_NO_AXIS: Final = 1e-6
#: More directions than asked for, and passes over the matrix, make the decomposition accurate
#: (Halko, Martinsson and Tropp 2011, section 4.5).
_OVERSAMPLED: Final = 16
_PASSES: Final = 4


class TextFeatures(NamedTuple):
    """Fitted features; (E) text vector and title give F = n_dense + n_terms numbers.

    Shapes: E numbers of the language model's vector, T terms.
    """

    mean: NDArray[np.float32]  # (E,)
    axes: NDArray[np.float32]  # (E, n_dense), each scaled by eigenvalue^-¼
    term_axes: NDArray[np.float32]  # (T, n_terms), idf and scale multiplied in
    vocabulary: tuple[str, ...]  # T terms, in order

    @property
    def n_dense(self) -> int:
        """Length of the dense part, which comes first."""
        return int(self.axes.shape[1])

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return self.n_dense + int(self.term_axes.shape[1])

    @property
    def fingerprint(self) -> str:
        """The hash of all numbers and terms."""
        digest = hashlib.blake2b(json.dumps(self.vocabulary).encode(), digest_size=16)
        for array in (self.mean, self.axes, self.term_axes):
            digest.update(json.dumps(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class FeatureMaker:
    """Applies fitted features; safe to call from several threads."""

    def __init__(self, fitted: TextFeatures) -> None:
        self.fitted = fitted
        self._place_of = {term: place for place, term in enumerate(fitted.vocabulary)}

    def dense(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give (N, n_dense) unit rows for text vectors (N, E); zeros where there is no text."""
        spread = (vectors - self.fitted.mean) @ self.fitted.axes
        return unit(spread * vectors.any(axis=1, keepdims=True))

    def terms(self, titles: Sequence[str]) -> NDArray[np.float32]:
        """Give (N, n_terms) unit rows; zeros where no term is known."""
        axes = self.fitted.term_axes
        rows = np.zeros((len(titles), axes.shape[1]), np.float32)
        if axes.shape[1]:
            for row, title in zip(rows, titles, strict=True):
                for term, weight in terms(title).items():
                    place = self._place_of.get(term)
                    if place is not None:
                        row += weight * axes[place]
        return unit(rows)

    def __call__(self, vectors: NDArray[np.float32], titles: Sequence[str]) -> NDArray[np.float32]:
        """Give (N, F): the dense part, then the terms."""
        return np.concatenate([self.dense(vectors), self.terms(titles)], axis=1)


def fit_text_features(
    vectors: NDArray[np.float32], titles: Sequence[str], *, n_dense: int, n_terms: int, seed: int
) -> TextFeatures:
    """Fit features on a catalogue; fewer numbers than asked for where it spans no more.

    Args:
        vectors: (N, E) text vectors, zeros for an item without text.
        titles: (N,)
        seed: of the random start of the decomposition.
    """
    mean, axes = _half_whitening(vectors[vectors.any(axis=1)], n_dense)
    vocabulary, idf, bags = _bags(titles)
    term_axes = _term_axes(bags, n_terms, seed) * idf[:, np.newaxis]
    return TextFeatures(mean, axes, term_axes.astype(np.float32), vocabulary)


def save_text_features(path: Path, fitted: TextFeatures) -> None:
    """Write features to a safetensors file."""
    header = {"format": _FORMAT, "vocabulary": fitted.vocabulary}
    arrays = {"mean": fitted.mean, "axes": fitted.axes, "term_axes": fitted.term_axes}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    save_file(tensors, path, metadata={_KEY: json.dumps(header)})


def load_text_features(path: Path) -> TextFeatures:
    """Read what :func:`save_text_features` wrote.

    Raises:
        BadInput: no such file, another format, or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
        if header["format"] != _FORMAT:
            raise BadInput(f"{path} has format {header['format']} of text features, not {_FORMAT}")
        arrays = {name: tensor.numpy() for name, tensor in load_file(path).items()}
        fitted = TextFeatures(
            arrays["mean"], arrays["axes"], arrays["term_axes"], tuple(header["vocabulary"])
        )
        if (len(fitted.mean), len(fitted.vocabulary)) != (len(fitted.axes), len(fitted.term_axes)):
            raise ValueError("arrays of sizes that do not fit together")
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise BadInput(
            f"{path} cannot be read as text features ({type(error).__name__}: {reason}); "
            "copy the bundle again"
        ) from error
    return fitted


def _half_whitening(
    vectors: NDArray[np.float32], n_dense: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the mean (E,) and the scaled principal axes (E, n); one of zeros where there is none."""
    none = np.zeros((vectors.shape[1], 1), np.float32)  # no axis, but vectors need a length
    if not len(vectors):
        return none[:, 0].copy(), none  # safetensors refuses arrays that share memory
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    values, axes = np.linalg.eigh(centred.T @ centred / len(vectors))
    values, axes = values[::-1], axes[:, ::-1]
    n = min(n_dense, int((values > _NO_AXIS * max(values[0], np.finfo(np.float64).tiny)).sum()))
    scaled = (axes[:, :n] * values[:n] ** -0.25).astype(np.float32)
    return mean.astype(np.float32), scaled if n else none


def _bags(titles: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float64], torch.Tensor]:
    """Give the vocabulary, log(N / items with the term) of each, and the matrix (N, T), sparse."""
    bags = [terms(title) for title in titles]
    counts = Counter(term for bag in bags for term in bag)
    common = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:_MAX_TERMS]
    vocabulary = tuple(sorted(term for term, n in common if n >= _MIN_ITEMS))
    idf = np.array([math.log(len(titles) / counts[term]) for term in vocabulary])
    place_of = {term: place for place, term in enumerate(vocabulary)}
    rows: list[int] = []
    places: list[int] = []
    weights: list[float] = []
    for row, bag in enumerate(bags):
        known = [(place_of[term], weight) for term, weight in bag.items() if term in place_of]
        rows += [row] * len(known)
        places += [place for place, _ in known]
        weights += [weight * idf[place] for place, weight in known]
    shape = (len(titles), len(vocabulary))
    index = torch.tensor([rows, places], dtype=torch.int64).view(2, -1)
    values = torch.tensor(weights, dtype=torch.float32)
    return vocabulary, idf, torch.sparse_coo_tensor(index, values, shape, check_invariants=False)


def _term_axes(bags: torch.Tensor, n_terms: int, seed: int) -> NDArray[np.float64]:
    """Give the right singular vectors of (N, T), each divided by √(singular value): (T, n)."""
    n_wanted = min(n_terms, *bags.shape)
    if not n_wanted:
        return np.zeros((bags.shape[1], 0))
    bags = bags.coalesce()
    turned = bags.t().coalesce()
    width = min(n_wanted + _OVERSAMPLED, *bags.shape)
    start = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(bags.shape[1], width, generator=start))[0]  # (T, W)
    for _ in range(_PASSES):
        reached = torch.linalg.qr(torch.sparse.mm(bags, basis))[0]  # (N, W)
        basis = torch.linalg.qr(torch.sparse.mm(turned, reached))[0]
    _, sizes, right = torch.linalg.svd(torch.sparse.mm(bags, basis), full_matrices=False)
    kept = min(n_wanted, int((sizes > math.sqrt(_NO_AXIS) * sizes[0].clamp(min=1e-30)).sum()))
    axes = (basis @ right[:kept].T).numpy().astype(np.float64)  # (T, n)
    # The sign of a singular vector is arbitrary; the largest entry decides it.
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(kept)])
    scaled: NDArray[np.float64] = axes * signs / np.sqrt(sizes[:kept].numpy())
    return scaled
