"""Choose the constants of the zero-shot encoder: ``python -m benchmarks.zero_shot_grid FOLDER``.

Prints NDCG@10 on the untied validation users (all where the log has no times) and, for comparison,
on all, stage after stage; each stage takes what was best on the untied in the one before it. Test
targets are not looked at.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from encoder.evaluation.dataset import read_dataset
from encoder.evaluation.evaluate import evaluate
from encoder.evaluation.histories import EVALUATION_LIMITS
from encoder.evaluation.metrics import ndcg
from encoder.evaluation.protocols import leave_one_out, untied
from encoder.evaluation.ranking import Ranker
from encoder.evaluation.rows import Rows
from encoder.evaluation.text_cache import default_cache, text_vectors
from encoder.evaluation.vectors import WeightedSum
from encoder.items import TextItemEncoder
from encoder.loading import load_text_encoder
from encoder.zero_shot import DAY_MS
from interest.bundle import DecayParameters

_DECAYS: Final = (0.6, 0.7, 0.8, 0.9)
_HALF_LIVES_DAYS: Final = (180, 730, 3_650)
_POWERS: Final = (0.25, 0.4, 0.5)
_DIMS: Final = (128, 256, None)
_WEIGHTS: Final = (1.0, 2.0, 3.0, 4.0)


def main(folder: Path) -> None:
    """Run the stages and print them."""
    dataset = read_dataset(folder)
    split = leave_one_out(dataset)
    untied_users = untied(dataset, split.validation)
    counted = slice(None) if untied_users is None else untied_users
    encoder = load_text_encoder()
    rows = Rows(
        dataset,
        split,
        lambda: TextItemEncoder(encoder),
        lambda: text_vectors(encoder, dataset.titles, default_cache(), lambda done, total: None),
    )

    def best(rankers: Mapping[str, Callable[[], Ranker]]) -> str:
        found: dict[str, float] = {}
        for name, make in rankers.items():
            ranked = evaluate(dataset, split, "validation", {name: make()}, EVALUATION_LIMITS)
            gains = ndcg(ranked.rows[name].ranks, 10)
            found[name] = float(gains[counted].mean())
            print(f"  {found[name]:.5f}  {gains.mean():.5f}  {name}", flush=True)
        return max(found, key=found.__getitem__)

    def fused(decay: DecayParameters, weight: float) -> Ranker:
        return WeightedSum(
            [(rows.zero_shot(decay, dim, power), 1.0), (rows.title_terms(decay), weight)]
        )

    decays = {
        f"{decay}, {days} days": DecayParameters(position_decay=decay, half_life_ms=days * DAY_MS)
        for decay, days in itertools.product(_DECAYS, _HALF_LIVES_DAYS)
    }
    print("dense: decay per position, half-life")
    dense = decays[
        best({name: partial(rows.zero_shot, decay, None) for name, decay in decays.items()})
    ]
    print("dense: power of the whitening")
    powers = {str(power): power for power in _POWERS}
    power = powers[
        best({name: partial(rows.zero_shot, dense, None, value) for name, value in powers.items()})
    ]
    print("dense: axes")
    dims = {str(dim): dim for dim in _DIMS}
    dim = dims[
        best({name: partial(rows.zero_shot, dense, value, power) for name, value in dims.items()})
    ]
    print("title terms alone: decay per position, half-life as above")
    some = {
        name: decay for name, decay in decays.items() if decay.half_life_ms == dense.half_life_ms
    }
    best({name: partial(rows.title_terms, decay) for name, decay in some.items()})
    print("dense + weight × title terms: one decay for both, weight")
    best(
        {
            f"{name}, weight {weight}": partial(fused, decay, weight)
            for (name, decay), weight in itertools.product(some.items(), _WEIGHTS)
        }
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.zero_shot_grid FOLDER")
    main(Path(sys.argv[1]))
