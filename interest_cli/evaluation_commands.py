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
    html: Annotated[Path | None, typer.Option(help="Write a report with plots.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for quality.json and each row's NAME.top20.npy."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of text vectors, else the user's cache.")
    ] = None,
) -> None:
    """Rank the whole catalogue for what users did next: baselines and encoders in one table."""
    from interest_cli import evaluation_report

    if html is not None:
        evaluation_report.check_html(html)
    # torch takes seconds to import: a wrong folder is told before.
    from encoder.evaluation.dataset import read_dataset

    dataset = read_dataset(folder)
    from interest_cli.evaluating import run_evaluation

    names = [name.strip() for name in rows.split(",") if name.strip()]
    evaluation = run_evaluation(settings(), dataset, protocol, on, names, cache)
    with err.status("comparing rows"):
        report = evaluation_report.report_of(evaluation)
    evaluation_report.show(report, out)
    if output is not None:
        evaluation_report.write_files(report, evaluation, output)
        err.print(f"written to {output}", markup=False)
    if html is not None:
        from interest_cli.evaluation_html import write_html

        write_html(report, html)
        err.print(f"written to {html}", markup=False)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(evaluate)
