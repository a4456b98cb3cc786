"""Commands that move data: topics, replay, convert; the catalogue's are beside them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from interest.errors import BadInput
from interest.event import Event
from interest_cli import stopping
from interest_cli.catalogue_commands import catalogue_app
from interest_cli.console import out, progress_bar, settings, warn
from interest_cli.files import RecordFile
from interest_cli.invalid_records import InvalidRecords

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
    show: Annotated[
        int,
        typer.Option(min=0, help="With --offline: print so many users and what they are offered."),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Which users --show chooses.")] = 0,
) -> None:
    """Publish a recorded event log, or fold and encode it offline."""
    if not offline:
        if items or output or quality or show:
            raise BadInput("--items, --out, --quality and --show belong to --offline")
        _replay_live(file, _speed(speed))
        return
    if items is None or not (output or quality or show):
        raise BadInput(
            "--offline needs --items FILE, and --out FILE.parquet, --quality or --show N"
        )
    from interest_cli.offline import Request, replay_offline

    replay_offline(Request(file, items, output, quality, show, seed), settings())


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
    invalid = InvalidRecords()
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


@convert_app.command("online-retail")
def convert_online_retail_command(
    csv: Annotated[Path, typer.Argument(help="The UCI Online Retail CSV, plain or gzip.")],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the two files.")],
) -> None:
    """Convert UCI Online Retail to events.jsonl.gz and items.jsonl.gz."""
    from interest_cli.convert import convert_online_retail

    summary = convert_online_retail(csv, out_dir)
    _summary(summary.n_events, summary.n_users, summary.n_items, summary.dropped)


@convert_app.command("rees46")
def convert_rees46_command(
    csv: Annotated[Path, typer.Argument(help="A shop's log in the REES46 format, plain or gzip.")],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the two files.")],
) -> None:
    """Convert a REES46 shop log to events.jsonl.gz and items.jsonl.gz."""
    from interest_cli.convert_rees46 import convert_rees46

    _summary(*convert_rees46(csv, out_dir))


def _summary(n_events: int, n_users: int, n_items: int, dropped: dict[str, int]) -> None:
    out.print(f"{n_events} events, {n_users} users, {n_items} items")
    for reason, n in sorted(dropped.items()):
        out.print(f"dropped {n} lines: {reason}")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(replay)
    app.add_typer(topics_app, name="topics")
    app.add_typer(catalogue_app, name="catalogue")
    app.add_typer(convert_app, name="convert")
