"""A bundle of a catalogue alone: whitened text vectors and title terms, nothing trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.bundle_folder import BundleParts
from encoder.sparse_fit import described, fit_sparse
from encoder.text_features import TextFeatures
from encoder.whitening import Whitening
from encoder.zero_shot import DECAY, DIM, POWER, SPARSE_DECAY, SPARSE_WEIGHT
from interest.bundle import (
    BundleConfig,
    FeatureWeights,
    ModelBundle,
    PathWeights,
    RetrievalPaths,
    TextModel,
)
from interest.item import Item
from interest.window import WindowLimits


def zero_shot_parts(
    items: Sequence[Item],
    vectors: NDArray[np.float32],
    text_model: TextModel,
    window: WindowLimits,
) -> BundleParts:
    """Fit the encoder that needs no training on a catalogue; its constants are global.

    Args:
        vectors: (M, E) text vectors of items, of all or of some; zeros for one without text.

    Raises:
        BadInput: fewer than two different texts, so there is nothing to fit.
    """
    features = features_of(Whitening.fit(vectors, dim=DIM, power=POWER))
    nobody = np.zeros(0, np.int64)
    sparse = fit_sparse(items, nobody, nobody)
    weights = PathWeights(terms=SPARSE_WEIGHT)
    config = BundleConfig(
        user_encoder="decay",
        text_model=text_model,
        window=window,
        decay=DECAY,
        features=FeatureWeights(fingerprint=features.fingerprint, dim=features.dim),
        sparse=described(sparse, terms_decay=SPARSE_DECAY, links_decay=SPARSE_DECAY),
        paths=RetrievalPaths(hybrid=weights, rerank=weights),
    )
    return BundleParts(ModelBundle(config=config), features, sparse=sparse)


def features_of(whitening: Whitening) -> TextFeatures:
    """Give whitening in the form in which bundles hold it: no terms, scales multiplied in."""
    axes = np.ascontiguousarray(whitening.axes * whitening.scales, np.float32)
    return TextFeatures(whitening.mean, axes, np.zeros((0, 0), np.float32), ())
