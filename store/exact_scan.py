"""The nearest rows by an exhaustive scan of one byte per number, exact all the same.

A vector x is scanned as s·c, with c of int8 and s = max|x| / 127, a quarter of the memory that has
to be read. The scan errs by a known margin (Cauchy-Schwarz):

    q·x - (t·d)·(s·c) = (t·d)·(x - s·c) + (q - t·d)·x,   |…| ≤ |t·d| |x - s·c| + |q - t·d| |x|

with d and t for the query. Rows within two margins of the k-th best may be among the best ``k``:
some dozens, which are scored from the vectors themselves. So the answer is that of a scan in
full precision, for any vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interest.errors import ServiceUnavailable

_LEVELS: Final = 127
#: Below this share of all rows, copying them together costs less than reading the others, too.
_GATHERED: Final = 0.25
_BLOCK: Final = 4096
#: What float32 rounds of a sum; generous, it costs a few more rows.
_ROUNDING: Final = 1e-6


class Coded(NamedTuple):
    """Vectors as one byte per number: ``codes`` (N, D) int8, ``scales`` (N,) float32.

    ``error`` is the greatest length of a difference to the vectors, ``length`` of a vector.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    error: float
    length: float


def kernel() -> Callable[..., Any]:
    """Give the function that multiplies int8; it does not hold the interpreter's lock.

    Raises:
        ServiceUnavailable: the extra ``embedded`` is not installed.
    """
    try:
        from numkong import cdist
    except ImportError as error:
        raise ServiceUnavailable(
            "the item engine is not installed: pip install 'interest-updater[embedded]', "
            "or set INTEREST_QDRANT_URL to a Qdrant server"
        ) from error
    return cdist


def coded(vectors: NDArray[np.float32]) -> Coded:
    """Give the codes of vectors (N, D), N ≥ 1, none of them zero."""
    scales = np.abs(vectors).max(axis=1) / np.float32(_LEVELS)
    # A vector of the smallest floats has no scale; one that is too small only errs more.
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    codes = np.clip(np.rint(vectors / scales[:, np.newaxis]), -_LEVELS, _LEVELS).astype(np.int8)
    errors = np.linalg.norm(vectors - scales[:, np.newaxis] * codes, axis=1)
    return Coded(codes, scales, float(errors.max()), float(np.linalg.norm(vectors, axis=1).max()))


class Nearest(NamedTuple):
    """Rows and their scores, in no order: the best ``k``, and all that tie with the last."""

    rows: NDArray[np.intp]
    scores: NDArray[np.float32]


def nearest(
    queries: NDArray[np.float32],
    k: int,
    rows: NDArray[np.intp],
    vectors: NDArray[np.float32],
    held: Coded,
    added: NDArray[np.float64] | None = None,
) -> Nearest:
    """Find the best ``k`` of ``rows``; of several queries the greatest dot product counts.

    Shapes: ``queries`` (Q, D), ``rows`` (R,) numbers below N, ``vectors`` (N, D).

    Args:
        added: (N,) what is added to the score of each row before any is left out.
    """
    if len(rows) > k:
        estimates, margin = _estimates(queries, rows, held)
        if added is not None:
            estimates += added[rows]
            margin += _ROUNDING * float(np.abs(added).max())
        least = np.partition(estimates, -k)[-k] - 2 * margin
        rows = rows[estimates >= least]
    scores = _scores(queries, rows, vectors, added)
    if len(rows) > k:
        kept = scores >= np.partition(scores, -k)[-k]
        rows, scores = rows[kept], scores[kept]
    return Nearest(rows, scores)


def _estimates(
    queries: NDArray[np.float32], rows: NDArray[np.intp], held: Coded
) -> tuple[NDArray[np.float32], float]:
    """Estimate the scores of rows (R,); give also how far one may be off."""
    asked = coded(queries)
    gathered = len(rows) < _GATHERED * len(held.codes)
    codes, scales = (held.codes[rows], held.scales[rows]) if gathered else held[:2]
    # (Q, R or N), whole numbers
    dots: NDArray[np.float64] = np.asarray(kernel()(asked.codes, codes, "dot"))
    estimates: NDArray[np.float32] = (
        dots.astype(np.float32) * asked.scales[:, np.newaxis] * scales
    ).max(axis=0)
    approximated = asked.length + asked.error
    margin = approximated * held.error + asked.error * held.length
    rounding = _ROUNDING * approximated * (held.length + held.error) + 1e-3 * margin
    if not gathered and len(rows) < len(estimates):
        estimates = estimates[rows]
    return estimates, margin + rounding


def _scores(
    queries: NDArray[np.float32],
    rows: NDArray[np.intp],
    vectors: NDArray[np.float32],
    added: NDArray[np.float64] | None,
) -> NDArray[np.float32]:
    """Score rows (R,) in float64: equal vectors get equal scores, wherever they lie."""
    asked = queries.astype(np.float64)
    scores = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), _BLOCK):
        some = rows[first : first + _BLOCK]
        # Not a matrix product: BLAS rounds a row by its place among the others.
        dots = np.einsum("rd,qd->rq", vectors[some].astype(np.float64), asked)
        best = dots.max(axis=1)
        scores[first : first + _BLOCK] = best if added is None else best + added[some]
    return scores
