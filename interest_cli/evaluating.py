"""`interest evaluate`: from a folder and names of rows to rankings, with progress."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.dataset import Dataset
from encoder.evaluation.evaluate import Evaluation, evaluate
from encoder.evaluation.histories import EVALUATION_LIMITS
from encoder.evaluation.protocols import PROTOCOLS, Part, Protocol
from encoder.evaluation.ranking import Ranker
from encoder.evaluation.rows import Rows, chosen
from encoder.evaluation.text_cache import default_cache, text_vectors
from encoder.factory import load_text_model, set_threads
from encoder.items import TextItemEncoder
from interest.errors import BadInput
from interest.settings import Settings
from interest_cli.console import progress_bar, warn


def run_evaluation(
    options: Settings,
    dataset: Dataset,
    protocol: Protocol,
    part: Part,
    names: Sequence[str],
    cache: Path | None,
) -> Evaluation:
    """Fit the rows and rank the targets; what is going on is said on standard error.

    Args:
        names: rows; none for all that this dataset allows. What it does not allow is warned of.
        cache: folder of text vectors; None for the user's.

    Raises:
        BadInput: the protocol or a row that was asked for does not fit the dataset.
        EncoderUnavailable: the text model cannot be loaded, or its device failed.
    """
    wanted = chosen(names)
    set_threads(options)
    split = PROTOCOLS[protocol](dataset)
    if not len(split.cases(part)):
        raise BadInput(f"{protocol} leaves no target for {part}: no user has enough events")
    if dataset.times_s is None:
        warn("the log has no times, so no target is known to be untied")
    with progress_bar() as bar:
        model = functools.cache(lambda: load_text_model(options))
        encoding = bar.add_task("texts", total=None, note="", visible=False)

        def vectors() -> NDArray[np.float32]:
            return text_vectors(
                model(),
                dataset.titles,
                cache or default_cache(),
                lambda done, total: bar.update(encoding, completed=done, total=total, visible=True),
            )

        rows = Rows(dataset, split, lambda: TextItemEncoder(model()), vectors)
        rankers: dict[str, Ranker] = {}
        left_out = {name: reason for name in wanted if (reason := rows.why_not(name))}
        for name, reason in left_out.items():
            warn(f"row {name} is left out: {reason}")
        if len(left_out) == len(wanted):
            raise BadInput("no row can be made of this dataset")
        fitting = bar.add_task("rows", total=len(wanted), note="")
        for name in wanted:
            bar.update(fitting, note=name)
            if name not in left_out:
                rankers[name] = rows.ranker(name)
            bar.advance(fitting)
        ranking = bar.add_task("targets", total=len(split.cases(part)), note="")
        return evaluate(
            dataset,
            split,
            part,
            rankers,
            EVALUATION_LIMITS,
            lambda done, total: bar.update(ranking, completed=done, total=total),
        )
