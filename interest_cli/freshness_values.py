"""`interest freshness`: from a log and names of schedules to figures, with progress."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from rich.progress import TaskID

from encoder.evaluation.dataset import Dataset, read_dataset
from encoder.evaluation.freshness import measure, queries
from encoder.evaluation.log_dataset import dataset_of
from encoder.evaluation.protocols import Cases, Split
from encoder.evaluation.rows import TEXT_ROWS, Rows, chosen
from encoder.evaluation.schedules import Schedule, delay, refresh
from encoder.evaluation.text_cache import default_cache, text_vectors
from encoder.factory import load_text_model, set_threads
from encoder.items import TextItemEncoder
from interest.errors import BadInput
from interest.event import EventType
from interest.settings import Settings
from interest_cli.console import progress_bar
from interest_cli.freshness_report import FreshnessReport, report_of
from interest_cli.log_files import read_log

_NOBODY: Final = np.zeros(0, np.int64)


class Request(NamedTuple):
    """What was asked for; see ``interest freshness --help``."""

    log: Path
    items: Path | None
    delays: Sequence[str]
    refreshes: Sequence[str]
    since_s: int | None
    types: Sequence[str]
    last: bool
    rows: Sequence[str]
    cache: Path | None


def measure_freshness(request: Request, options: Settings) -> FreshnessReport:
    """Rank the targets of a log by vectors of each schedule.

    Raises:
        BadInput: the log cannot be used, or what was asked for does not fit it.
        EncoderUnavailable: the text model cannot be loaded, or its device failed.
    """
    schedules = _schedules(request)
    names = chosen(request.rows)
    fitted = [name for name in names if name not in TEXT_ROWS]
    if fitted and request.since_s is None:
        raise BadInput(f"row {fitted[0]} learns from events: --since says until when it may")
    types = _types(request.types)
    set_threads(options)
    dataset = _dataset(request)
    asked = queries(dataset, since_s=request.since_s, types=types, last=request.last)
    assert dataset.times_s is not None  # queries() refuses a log without
    before = np.zeros(len(dataset.items), np.bool_)
    if request.since_s is not None:
        before = dataset.times_s < request.since_s
        if not before.any():
            raise BadInput("no event lies before --since: there is nothing to learn from")
    none = Cases(_NOBODY, _NOBODY)
    split = Split("global-time", before, none, none)
    model = functools.cache(lambda: load_text_model(options))
    with progress_bar() as bar:
        encoding = bar.add_task("texts", total=None, note="", visible=False)

        def on_texts(done: int, total: int) -> None:
            bar.update(encoding, completed=done, total=total, visible=True)

        cache = request.cache or default_cache()
        rows = Rows(
            dataset,
            split,
            lambda: TextItemEncoder(model()),
            lambda: text_vectors(model(), dataset.titles, cache, on_texts),
        )
        measured = {}
        for name in names:
            task = bar.add_task(name, total=None, note="")

            def on_queries(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            ranker = rows.ranker(name)
            measured[name] = measure(dataset, asked, schedules, ranker, on_queries)
    found = [schedule.name for schedule in schedules]
    return report_of(dataset.fingerprint, asked, found, measured)


def _schedules(request: Request) -> list[Schedule]:
    if bool(request.delays) == bool(request.refreshes):
        raise BadInput("name either --delays or --refreshes, the freshest first")
    if request.delays:
        return [delay(word) for word in request.delays]
    return [refresh(word, request.since_s) for word in request.refreshes]


def _types(names: Sequence[str]) -> list[EventType]:
    try:
        return [EventType(name) for name in names]
    except ValueError as error:
        known = ", ".join(type_.value for type_ in EventType)
        raise BadInput(f"--types: {error}; there are {known}") from error


def _dataset(request: Request) -> Dataset:
    if request.log.is_dir():
        if request.items is not None:
            raise BadInput("--items belongs to an event log; a folder brings its own items.tsv")
        return read_dataset(request.log)
    events, items = read_log(request.log, request.items)
    return dataset_of(events, items)
