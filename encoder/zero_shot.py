"""The encoder without training: what it is made of, and its constants.

Dense: whitened text vectors (:mod:`encoder.whitening`) pooled by ``decay``. Sparse: title
terms (:mod:`encoder.title_terms`) pooled the same way. Together: dense + weight × sparse, both of
unit length, so that one constant suits every user.

The constants were chosen on the untied validation users of Amazon Beauty by
``python -m benchmarks.zero_shot_grid`` (docs/evaluation.md).
"""

from __future__ import annotations

from typing import Final

from interest.bundle import DecayParameters

DAY_MS: Final = 86_400_000

#: How fast the past fades.
DECAY: Final = DecayParameters(position_decay=0.8, half_life_ms=730 * DAY_MS)
#: Of the whitening: the scale of an axis is its eigenvalue^-power.
POWER: Final = 0.5
#: Axes of the text vectors that are kept; None keeps all.
DIM: Final[int | None] = None
#: How fast the title terms fade per position; all else as above.
SPARSE_DECAY: Final = 0.8
#: What the cosine of title terms counts beside that of the dense vectors.
SPARSE_WEIGHT: Final = 2.0
