"""`interest evaluate`: from a folder and names of rows to rankings, with progress."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.bundle_folder import BundleParts, load_bundle_folder
from encoder.evaluation.bundle_rows import ONE_VECTOR, EncodedBundle, encode_bundle
from encoder.evaluation.dataset import Dataset
from encoder.evaluation.evaluate import Evaluation, buys_again, evaluate
from encoder.evaluation.histories import EVALUATION_LIMITS
from encoder.evaluation.protocols import PROTOCOLS, Part, Protocol, Split
from encoder.evaluation.ranking import Ranker
from encoder.evaluation.rows import Rows, chosen
from encoder.evaluation.text_cache import Progress, default_cache, text_vectors
from encoder.factory import load_text_model, set_threads, text_encoder_of
from encoder.held_out import held_out_by
from encoder.items import TextItemEncoder
from encoder.loading import choose_device
from encoder.text_encoder import TextEncoder
from interest.bundle import ModelBundle, TextModel
from interest.errors import BadInput
from interest.settings import Settings
from interest.window import WindowLimits
from interest_cli.console import progress_bar, warn
from interest_cli.served_rows import SYSTEM, ZERO_SHOT_SPARSE, served, zero_shot


class Request(NamedTuple):
    """What was asked for; see ``interest evaluate --help``.

    ``rows`` are names, none for all that the dataset allows; ``cache`` is the folder of text
    vectors, None for the user's.
    """

    protocol: Protocol
    part: Part
    rows: Sequence[str]
    bundles: Sequence[Path]
    cache: Path | None


class Evaluated(NamedTuple):
    """The rankings, and the bundles behind the row ``one-vector``, in the order given."""

    evaluation: Evaluation
    bundles: list[EncodedBundle]


def run_evaluation(options: Settings, dataset: Dataset, request: Request) -> Evaluated:
    """Fit the rows and rank the targets; what is going on is said on standard error.

    Raises:
        BadInput: the protocol or a row that was asked for does not fit the dataset, or a bundle
            cannot be read.
        EncoderUnavailable: the text model cannot be loaded, or its device failed.
    """
    names = [name for name in request.rows if name not in (ONE_VECTOR, SYSTEM)]
    if len(names) < len(request.rows) and not request.bundles:
        raise BadInput(
            f"the rows {ONE_VECTOR} and {SYSTEM} need --bundle BUNDLE; `interest train` makes one"
        )
    wanted = chosen(names) if names or not request.rows else []
    both = (ONE_VECTOR, SYSTEM)
    of_bundles = [name for name in both if name in request.rows] or both
    set_threads(options)
    loaded = [load_bundle_folder(folder) for folder in request.bundles]
    split = _split(request.protocol, dataset, [parts.bundle for parts in loaded])
    n_cases = len(split.cases(request.part))
    if not n_cases:
        raise BadInput(
            f"{request.protocol} leaves no target for {request.part}: no user has enough events"
        )
    if dataset.times_s is None:
        warn("the log has no times, so no target is known to be untied")
    exclude_seen = not buys_again(dataset, split.cases(request.part)).any()
    with progress_bar() as bar, ExitStack() as stack:
        encoding = bar.add_task("texts", total=None, note="", visible=False)

        def on_texts(done: int, total: int) -> None:
            bar.update(encoding, completed=done, total=total, visible=True)

        fitting = bar.add_task("rows", total=len(wanted) + len(request.bundles), note="")

        def on_row(name: str) -> None:
            bar.update(fitting, note=name, advance=1)

        cache = request.cache or default_cache()

        def as_served(encoded: EncodedBundle) -> Ranker:
            return stack.enter_context(served(encoded, dataset, exclude_seen=exclude_seen))

        rankers = _untrained(options, dataset, split, wanted, cache, on_texts, on_row, as_served)
        bundles = _encoded(options, dataset, loaded, cache, on_texts, on_row)
        if not rankers and not bundles:
            raise BadInput("no row can be made of this dataset")
        by_limits: dict[WindowLimits, dict[str, Ranker]] = {}
        if rankers:
            by_limits[EVALUATION_LIMITS] = rankers
        runs: dict[str, list[str]] = {}
        for i, encoded in enumerate(bundles):
            some = by_limits.setdefault(encoded.bundle.config.window, {})
            for name in of_bundles:
                run = name if len(bundles) == 1 else f"{name}/{i}"
                runs.setdefault(name, []).append(run)
                some[run] = encoded.ranker if name == ONE_VECTOR else as_served(encoded)
        ranking = bar.add_task("targets", total=n_cases * len(by_limits), note="")
        before = 0

        def on_targets(done: int, total: int) -> None:
            bar.update(ranking, completed=before + done)

        found = Evaluation(dataset, split, request.part, {}, runs)
        for limits, some in by_limits.items():
            ranked = evaluate(dataset, split, request.part, some, limits, on_targets)
            found.rows.update(ranked.rows)
            before += n_cases
    return Evaluated(found, bundles)


def _split(protocol: Protocol, dataset: Dataset, bundles: Sequence[ModelBundle]) -> Split:
    """Cut the log; no row may train on items that the bundles were kept from."""
    split = PROTOCOLS[protocol](dataset)
    held_out = [held_out_by(bundle.config.training, dataset.item_ids) for bundle in bundles]
    if any((items != held_out[0]).any() for items in held_out):
        raise BadInput(
            "the bundles were kept from different items (--hold-out-items of `interest train`); "
            "evaluate them one by one"
        )
    # In leave-one-out the validation event chose the epoch, and nothing was fitted on it.
    allowed = int(split.train.sum())
    allowed += len(split.validation) if protocol == "leave-one-out" else 0
    for bundle in bundles:
        record = bundle.config.training
        if record is not None and record.n_events > allowed:
            warn(
                f"bundle {bundle.model_id} was trained on {record.n_events:,} events, and "
                f"{protocol} leaves {allowed:,} for that: it may know its targets "
                "(see --leave-out of `interest train`)"
            )
    return split.without(dataset, held_out[0]) if held_out and held_out[0].any() else split


def _untrained(
    options: Settings,
    dataset: Dataset,
    split: Split,
    wanted: Sequence[str],
    cache: Path,
    on_texts: Progress,
    on_row: Callable[[str], None],
    as_served: Callable[[EncodedBundle], Ranker],
) -> dict[str, Ranker]:
    """Fit the rows that need no bundle; what the dataset does not allow is warned of."""
    model = functools.cache(lambda: load_text_model(options))
    vectors = functools.cache(lambda: text_vectors(model(), dataset.titles, cache, on_texts))
    rows = Rows(dataset, split, lambda: TextItemEncoder(model()), vectors)
    rankers: dict[str, Ranker] = {}
    for name in wanted:
        on_row(name)
        if reason := rows.why_not(name):
            warn(f"row {name} is left out: {reason}")
        elif name == ZERO_SHOT_SPARSE:
            rankers[name] = as_served(zero_shot(dataset, model(), vectors(), options))
        else:
            rankers[name] = rows.ranker(name)
    return rankers


def _encoded(
    options: Settings,
    dataset: Dataset,
    loaded: Sequence[BundleParts],
    cache: Path,
    on_texts: Progress,
    on_row: Callable[[str], None],
) -> list[EncodedBundle]:
    """Encode the catalogue by each bundle; those of one text model share its vectors."""

    @functools.cache
    def texts(model: TextModel) -> tuple[TextEncoder, NDArray[np.float32]]:
        encoder = text_encoder_of(model, options.text_model, options.device)
        return encoder, text_vectors(encoder, dataset.titles, cache, on_texts)

    encoded: list[EncodedBundle] = []
    for parts in loaded:
        on_row(ONE_VECTOR)
        encoder, vectors = texts(parts.bundle.config.text_model)
        device = choose_device(options.device)
        encoded.append(encode_bundle(parts, encoder, dataset, vectors, device))
    return encoded
