"""`interest evaluate` and `interest freshness`: how good vectors are, and what fresh ones add."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from interest_cli.console import err, out, settings

Protocol = Literal["leave-one-out", "global-time"]
Part = Literal["validation", "test"]


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder with items.tsv and sequences.tsv.")],
    protocol: Annotated[
        Protocol, typer.Option(help="How the log is cut; see docs/evaluation.md.")
    ] = "leave-one-out",
    on: Annotated[
        Part, typer.Option(help="The targets; choose between models on validation alone.")
    ] = "test",
    rows: Annotated[str, typer.Option(help="Rows, separated by commas; empty: all.")] = "",
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="Model bundle for the row one-vector; several seeds: repeat."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for quality.json, vectors and best items (.npy)."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of text vectors, else the user's cache.")
    ] = None,
) -> None:
    """Rank the whole catalogue for what users did next: baselines, encoders, trained bundles."""
    from interest_cli import evaluation_report

    if html is not None:
        evaluation_report.check_plot(html, "--html")
    # torch takes seconds to import: a wrong folder is told before.
    from encoder.evaluation.dataset import read_dataset

    dataset = read_dataset(folder)
    from interest_cli.evaluating import Request, run_evaluation

    request = Request(protocol, on, _words(rows), bundle or [], cache)
    evaluated = run_evaluation(settings(), dataset, request)
    with err.status("comparing rows"):
        report = evaluation_report.report_of(evaluated.evaluation)
    evaluation_report.show(report, out)
    if output is not None:
        evaluation_report.write_files(report, evaluated, output)
        err.print(f"written to {output}", markup=False)
    if html is not None:
        from interest_cli.evaluation_html import write_html

        write_html(report, html)
        err.print(f"written to {html}", markup=False)


def freshness(
    log: Annotated[
        Path, typer.Argument(help="Event log, or a folder with items.tsv and sequences.tsv.")
    ],
    items: Annotated[Path | None, typer.Option(help="The catalogue of an event log.")] = None,
    delays: Annotated[
        str, typer.Option(help="How much older events must be, such as 0s,5s,1m,10m.")
    ] = "",
    refreshes: Annotated[
        str, typer.Option(help="How often vectors are made: event,hour,day,week,month,30d,never.")
    ] = "",
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Day (UTC) of the split: train before, ask after."),
    ] = None,
    types: Annotated[
        str, typer.Option(help="Types of events to predict; empty: all but remove and return.")
    ] = "",
    last: Annotated[
        bool, typer.Option("--last", help="Ask for the newest event of each user, if untied.")
    ] = False,
    rows: Annotated[str, typer.Option(help="Rows of `interest evaluate`.")] = "zero-shot-sparse",
    output: Annotated[Path | None, typer.Option("--out", help="File for all figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw an SVG.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of text vectors, else the user's cache.")
    ] = None,
) -> None:
    """Rank the same targets by vectors of different age: what is freshness worth?"""
    from interest_cli.evaluation_report import check_plot

    if plot is not None:
        check_plot(plot, "--plot")
    from interest_cli import freshness_report
    from interest_cli.freshness_values import Request, measure_freshness

    request = Request(
        log=log, items=items, delays=_words(delays), refreshes=_words(refreshes),
        since_s=None if since is None else int(since.replace(tzinfo=UTC).timestamp()),
        types=_words(types), last=last, rows=_words(rows), cache=cache,
    )  # fmt: skip
    report = measure_freshness(request, settings())
    freshness_report.show(report, out)
    if output is not None:
        freshness_report.write_json(report, output)
    if plot is not None:
        freshness_report.draw(report, plot)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(evaluate)
    app.command()(freshness)
