"""`interest evaluate`: baselines and encoders by one protocol, in one table."""

from __future__ import annotations

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
        evaluation_report.check_html(html)
    # torch takes seconds to import: a wrong folder is told before.
    from encoder.evaluation.dataset import read_dataset

    dataset = read_dataset(folder)
    from interest_cli.evaluating import Request, run_evaluation

    names = [name.strip() for name in rows.split(",") if name.strip()]
    request = Request(protocol, on, names, bundle or [], cache)
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


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(evaluate)
