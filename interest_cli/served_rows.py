"""Rows of the evaluation that rank as the API does: a bundle behind one of its retrieval paths."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.bundle_rows import EncodedBundle, encode_bundle
from encoder.evaluation.dataset import Dataset
from encoder.evaluation.histories import EVALUATION_LIMITS
from encoder.loading import choose_device
from encoder.text_encoder import TextEncoder
from encoder.zero_shot_bundle import zero_shot_parts
from interest.settings import Settings
from interest_cli.path_ranker import PathRanker

#: A trained bundle on the path that ranked its validation users best.
SYSTEM: Final = "system"
#: The encoder without training, with title terms beside its vectors.
ZERO_SHOT_SPARSE: Final = "zero-shot-sparse"


def served(encoded: EncodedBundle, dataset: Dataset, *, exclude_seen: bool) -> PathRanker:
    """Rank by the best path of a bundle.

    Args:
        exclude_seen: whether the API leaves out what is in the window; not where people buy again.
    """
    row_of = {item_id: row for row, item_id in enumerate(dataset.item_ids)}
    return PathRanker(encoded.encoders, encoded.known, row_of, exclude_seen=exclude_seen)


def zero_shot(
    dataset: Dataset,
    text_encoder: TextEncoder,
    vectors: NDArray[np.float32],
    options: Settings,
) -> EncodedBundle:
    """Fit the bundle that needs no events on the catalogue of a dataset.

    Args:
        vectors: (N, E) text vectors of its items.
    """
    described = text_encoder.described
    parts = zero_shot_parts(dataset.catalogue(), vectors, described, EVALUATION_LIMITS)
    return encode_bundle(parts, text_encoder, dataset, vectors, choose_device(options.device))
