"""`interest replay --offline`: what is made of a log without Kafka and Redis, with progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from interest.clock import system_clock
from interest.event import Event
from interest.item import Item
from interest.settings import Settings
from interest_cli.bundles import load_bundle
from interest_cli.console import out, progress_bar, warn
from interest_cli.files import RecordFile, read_events, read_items
from interest_cli.invalid_records import InvalidRecords
from interest_cli.replay import LoadedBundle, fold_log, replay, write_parquet


class Request(NamedTuple):
    """What was asked for; see ``interest replay --help``."""

    log: Path
    items: Path
    output: Path | None
    quality: bool
    n_shown: int
    seed: int


def replay_offline(request: Request, settings: Settings) -> None:
    """Read a log once for each thing that is made of it.

    Raises:
        BadInput: a file is missing or no log, or the output cannot be written.
        EncoderUnavailable: the model cannot be loaded, or its device failed.
    """
    loaded = load_bundle(settings)
    for is_wanted, make in (
        (request.output, _write_vectors),
        (request.quality, _show_quality),
        (request.n_shown, _show_users),
    ):
        if is_wanted:
            make(request, settings, loaded)


class _Reading:
    """One reading of both files under a progress bar."""

    def __init__(self, request: Request, bar: Progress) -> None:
        self._events = RecordFile(request.log, Event, warn)
        self._catalogue = RecordFile(request.items, Item, warn)
        self._bar = bar
        self._tasks = {"events": bar.add_task("events", total=self._events.total_bytes, note="")}
        self._invalid = InvalidRecords()

    def events(self) -> Iterator[Event]:
        """Give the valid events."""
        on_invalid = self._invalid.note_record
        for event in read_events(self._events, now_ms=system_clock(), on_invalid=on_invalid):
            self._bar.update(self._tasks["events"], completed=self._events.bytes_read)
            yield event

    def items(self) -> Iterator[Item]:
        """Give the valid items."""
        return read_items(self._catalogue, on_invalid=self._invalid.note_record)

    def progress(self, what: str, n: int, of: int) -> None:
        """Show what is encoded."""
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=of, note="")
        self._bar.update(self._tasks[what], completed=n, total=of)

    def summary(self) -> str:
        """Say how many records were invalid."""
        return self._invalid.summary()


def _write_vectors(request: Request, settings: Settings, loaded: LoadedBundle) -> None:
    assert request.output is not None
    with progress_bar() as bar:
        reading = _Reading(request, bar)
        users = replay(
            reading.events(), reading.items(), loaded,
            batch_tokens=settings.batch_tokens, progress=reading.progress,
        )  # fmt: skip
        n_users = write_parquet(request.output, users, loaded.bundle.model_id)
    out.print(f"{n_users} users written to {request.output}" + reading.summary())


def _show_quality(request: Request, settings: Settings, loaded: LoadedBundle) -> None:
    from interest_cli.replay_quality import offline_quality, show_quality

    with progress_bar() as bar:
        reading = _Reading(request, bar)
        counts = offline_quality(
            reading.events(), reading.items(), loaded, settings, reading.progress
        )
    show_quality(counts)


def _show_users(request: Request, settings: Settings, loaded: LoadedBundle) -> None:
    from interest_cli.showcase import make_showcase, show

    with progress_bar() as bar:
        reading = _Reading(request, bar)
        items = {item.item_id: item for item in reading.items()}
        windows = fold_log(reading.events(), loaded.bundle.config.window)
        showcase = make_showcase(
            list(windows.values()), list(items.values()), loaded, settings,
            request.n_shown, request.seed, reading.progress,
        )  # fmt: skip
    show(showcase)
