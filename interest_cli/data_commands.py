"""Commands that move data: topics, replay, convert; the catalogue's are beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from interest.clock import system_clock
from interest.errors import BadInput, InvalidEvent
from interest.event import Event
from interest.item import Item
from interest_cli import stopping
from interest_cli.catalogue_commands import catalogue_app
from interest_cli.console import out, progress_bar, settings, warn
from interest_cli.files import InvalidRecord, RecordFile, read_events, read_items

_WARNED = 5
#: So many invalid records at the start, and no valid one, and the file is the wrong one.
_HOPELESS = 100

topics_app = typer.Typer(help="Create and check the Kafka topics.", no_args_is_help=True)
convert_app = typer.Typer(help="Convert public data sets.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="JSON Lines (plain, gzip, zstd) or Parquet.")]


@topics_app.command("create")
def topics_create(
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Partitions of topics that are created.")
    ] = None,
) -> None:
    """Create the topics that are missing; check that those which exist fit together."""
    from streams.topics import ensure_topics

    report = stopping.run(ensure_topics(settings(partitions=partitions)))
    for name in report.created:
        out.print(f"created  {name}")
    for name in report.existing:
        out.print(f"exists   {name}")
    out.print(f"{report.partitions} partitions")


@topics_app.command("grow")
def topics_grow(
    partitions: Annotated[int, typer.Argument(min=1, help="How many there shall be.")],
) -> None:
    """Add partitions, and move the windows to where their users are then. Stop workers first."""
    from interest_cli.growing import grow_topics

    stopping.run(grow_topics(settings(), partitions))


def replay(
    file: File,
    speed: Annotated[
        str, typer.Option(help="1 keeps the recorded times, 60 plays an hour a minute; or max.")
    ] = "max",
    offline: Annotated[
        bool, typer.Option("--offline", help="Without Kafka and Redis: same fold, same encoder.")
    ] = False,
    items: Annotated[Path | None, typer.Option(help="The catalogue, for --offline.")] = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Where --offline writes the vectors (Parquet).")
    ] = None,
    quality: Annotated[
        bool,
        typer.Option("--quality", help="With --offline: the live quality that a worker counts."),
    ] = False,
) -> None:
    """Publish a recorded event log, or fold and encode it offline."""
    if not offline:
        if items or output or quality:
            raise BadInput("--items, --out and --quality belong to --offline")
        _replay_live(file, _speed(speed))
        return
    if items is None or (output is None and not quality):
        raise BadInput("--offline needs --items FILE, and --out FILE.parquet or --quality")
    if output is not None:
        _replay_offline(file, items, output)
    if quality:
        _replay_quality(file, items)


def _speed(text: str) -> float | Literal["max"]:
    if text == "max":
        return "max"
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise BadInput(f"--speed is {text!r}, expected a number above 0, or max")
    return speed


def _replay_live(file: Path, speed: float | Literal["max"]) -> None:
    from streams.publish import outgoing_events, publish

    options = settings()
    invalid = _Invalid()
    log = RecordFile(file, Event, warn)
    began = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task("events", total=log.total_bytes, note="")
        n = 0

        def on_sent(sent: int) -> None:
            nonlocal n
            n += sent
            bar.update(task, completed=log.bytes_read, note=f"{n:,}")

        records = outgoing_events(invalid.raws(log), invalid.note)
        n = stopping.run(publish(options, "events", records, speed=speed, on_sent=on_sent))
    rate = n / max(time.perf_counter() - began, 1e-9)
    out.print(f"{n} events published, {rate:,.0f}/s" + invalid.summary())


def _replay_offline(file: Path, items: Path, output: Path) -> None:
    from interest_cli.bundles import load_bundle
    from interest_cli.replay import replay as replay_log
    from interest_cli.replay import write_parquet

    options = settings()
    invalid = _Invalid()
    events = RecordFile(file, Event, warn)
    catalogue = RecordFile(items, Item, warn)
    loaded = load_bundle(options)
    with progress_bar() as bar:
        reading = bar.add_task("events", total=events.total_bytes, note="")
        encoding = {
            "items": bar.add_task("items", total=None, note=""),
            "users": bar.add_task("users", total=None, note=""),
        }

        def watched() -> Iterator[Event]:
            for event in read_events(events, now_ms=system_clock(), on_invalid=invalid.note_record):
                bar.update(reading, completed=events.bytes_read)
                yield event

        users = replay_log(
            watched(),
            read_items(catalogue, on_invalid=invalid.note_record),
            loaded,
            batch_tokens=options.batch_tokens,
            progress=lambda what, n, of: bar.update(encoding[what], completed=n, total=of),
        )
        n_users = write_parquet(output, users, loaded.bundle.model_id)
    out.print(f"{n_users} users written to {output}" + invalid.summary())


def _replay_quality(file: Path, items: Path) -> None:
    from interest_cli.bundles import load_bundle
    from interest_cli.replay_quality import offline_quality, show_quality

    options = settings()
    invalid = _Invalid()
    events = RecordFile(file, Event, warn)
    catalogue = RecordFile(items, Item, warn)
    loaded = load_bundle(options)
    with progress_bar() as bar:
        encoding = bar.add_task("items", total=None, note="")
        reading = bar.add_task("events", total=events.total_bytes, note="")

        def watched() -> Iterator[Event]:
            for event in read_events(events, now_ms=system_clock(), on_invalid=invalid.note_record):
                bar.update(reading, completed=events.bytes_read)
                yield event

        counts = offline_quality(
            watched(),
            read_items(catalogue, on_invalid=invalid.note_record),
            loaded,
            options,
            lambda what, n, of: bar.update(encoding, completed=n, total=of),
        )
    show_quality(counts)


@convert_app.command("online-retail")
def convert_online_retail_command(
    csv: Annotated[Path, typer.Argument(help="The UCI Online Retail CSV, plain or gzip.")],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the two files.")],
) -> None:
    """Convert UCI Online Retail to events.jsonl.gz and items.jsonl.gz."""
    from interest_cli.convert import convert_online_retail

    summary = convert_online_retail(csv, out_dir)
    out.print(f"{summary.n_events} events, {summary.n_users} users, {summary.n_items} items")
    for reason, n in sorted(summary.dropped.items()):
        out.print(f"dropped {n} lines: {reason}")


class _Invalid:
    """Reports the first invalid records one by one, and counts all."""

    def __init__(self) -> None:
        self._n = 0
        self._path = ""
        self._line = 0

    def raws(self, file: RecordFile) -> Iterator[bytes]:
        """Give the records of a file, keeping the place for :meth:`note`.

        Raises:
            BadInput: nothing is valid from the start: the file is something else.
        """
        self._path = file.path
        for record in file:
            if self._n == self._line == _HOPELESS:
                raise BadInput(
                    f"{file.path}: the first {_HOPELESS} records are invalid; is it another kind "
                    "of file? (`interest convert` makes events of public data sets)"
                )
            self._line += 1
            yield record.raw

    def note(self, error: InvalidEvent) -> None:
        self._add(f"{self._path}:{self._line}: {error}")

    def note_record(self, record: InvalidRecord) -> None:
        self._add(f"{record.path}:{record.line}: {record.reason}: {record.detail}")

    def _add(self, line: str) -> None:
        self._n += 1
        if self._n <= _WARNED:
            warn(line)

    def summary(self) -> str:
        return f", {self._n} of them invalid (dead letters)" if self._n else ""


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(replay)
    app.add_typer(topics_app, name="topics")
    app.add_typer(catalogue_app, name="catalogue")
    app.add_typer(convert_app, name="convert")
