"""What ``interest train`` does: read, train, write, and say how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from encoder.bundle_folder import save_bundle_folder
from encoder.evaluation.dataset import read_dataset
from encoder.evaluation.histories import histories, item_table
from encoder.evaluation.protocols import Cases
from encoder.items import TextItemEncoder
from encoder.loading import choose_device, load_text_encoder
from encoder.training.fit import TrainedOn, train
from encoder.training.loop import EpochReport
from encoder.training.parameters import TrainingParameters, read_parameters
from interest.bundle import ModelBundle
from interest.errors import BadInput
from interest.event import MAX_TS_MS
from interest.item import Item
from interest.settings import Settings
from interest.window import BehaviourWindow, WindowLimits
from interest_cli.console import err, progress_bar
from interest_cli.log_files import read_log
from interest_cli.replay import fold_log

#: A user's newest behaviours to train on: as many as a window may hold, however old.
_HISTORY: Final = WindowLimits(max_events=1000, span_ms=MAX_TS_MS)
#: Beside the bundle's own files, and no part of what it is: it holds times of this machine.
METRICS_LOG: Final = "training.jsonl"


class TrainingRun(NamedTuple):
    """What was asked for; see ``interest train --help``."""

    log: Path
    items: Path | None
    output: Path
    config: Path | None
    seed: int
    resume: bool
    leave_out: int
    hold_out_items: float | None
    licences: tuple[str, ...]


def train_bundle(run: TrainingRun, settings: Settings) -> ModelBundle:
    """Train a bundle and write it; while that lasts, its checkpoint lies in ``OUT.training``.

    Raises:
        BadInput: an input is missing or wrong, or the output exists.
        EncoderUnavailable: text model or device cannot be used.
    """
    parameters = read_parameters(run.config) if run.config else TrainingParameters()
    if run.hold_out_items is not None:
        parameters = msgspec.structs.replace(parameters, hold_out_items=run.hold_out_items)
    if run.output.exists():
        raise BadInput(f"{run.output} exists; choose another folder, or remove it")
    if not run.output.parent.is_dir():
        raise BadInput(f"{run.output.parent} is no folder; make it first")
    windows, items = _read(run)
    text_encoder = load_text_encoder(
        settings.text_model, pooling=settings.text_pooling, device=settings.device,
        instruction=settings.text_instruction, max_tokens=settings.text_max_tokens,
    )  # fmt: skip
    data = TrainedOn(windows, items, TextItemEncoder(text_encoder), text_encoder.described)
    with _progress() as (progress, on_epoch):
        parts, checkpoint = train(
            data, parameters, seed=run.seed, resume=run.resume, licences=run.licences,
            folder=run.output.with_name(run.output.name + ".training"),
            device=choose_device(settings.device), threads=settings.threads,
            on_epoch=on_epoch, progress=progress,
        )  # fmt: skip
    save_bundle_folder(run.output, parts)
    checkpoint.close(run.output / METRICS_LOG)
    return parts.bundle


def _read(run: TrainingRun) -> tuple[list[BehaviourWindow], list[Item]]:
    """Fold the log as a worker would, but for the limits."""
    if run.log.is_dir():
        if run.items is not None:
            raise BadInput("--items belongs to an event log; a folder brings its own items.tsv")
        return _read_folder(run)
    events, items = read_log(run.log, run.items)
    folded = fold_log(events, _HISTORY)
    if not run.leave_out:
        return list(folded.values()), items
    cut = (window.with_rows(list(window.rows())[: -run.leave_out]) for window in folded.values())
    return [window for window in cut if len(window)], items


def _read_folder(run: TrainingRun) -> tuple[list[BehaviourWindow], list[Item]]:
    dataset = read_dataset(run.log)
    ends = dataset.starts[1:] - run.leave_out
    users = np.flatnonzero(ends > dataset.starts[:-1])
    windows = histories(dataset, Cases(users, ends[users]), _HISTORY, item_table(dataset))
    return list(windows), dataset.catalogue()


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str, int, int], None], Callable[[EpochReport], None]]]:
    """Show the texts in a bar and every epoch as a line; both on standard error."""
    with progress_bar() as bar:
        task = bar.add_task("texts", total=None, note="")

        def progress(what: str, n: int, of: int) -> None:
            bar.update(task, description=what, completed=n, total=of)

        def on_epoch(report: EpochReport) -> None:
            bar.update(task, visible=False)
            err.print(
                f"epoch {report.epoch + 1}: loss {report.loss:.4f}, validation NDCG@10 "
                f"{report.ndcg:.4f}, {report.seconds:.0f} s"
            )

        yield progress, on_epoch
