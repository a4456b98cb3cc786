"""Commands that run the product, and those that look at what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interest.item import ItemFilter
from interest_cli import stopping
from interest_cli.console import err, out, settings

Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]


def worker(port: Port = None) -> None:
    """Run a worker: events in, fresh vectors out. Start as many as there is work for."""
    from interest_cli.serving import run_worker

    stopping.run(run_worker(settings(worker_port=port)))


def serve(host: Host = None, port: Port = None) -> None:
    """Serve the HTTP API: vectors, recommendations, similar items."""
    from interest_cli.serving import run_api

    stopping.run(run_api(settings(api_host=host, api_port=port)))


def demo(
    once: Annotated[bool, typer.Option("--once", help="Exit when the sample is through.")] = False,
    port: Port = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the vectors and windows that the run leaves to a Parquet file."),
    ] = None,
    events: Annotated[Path | None, typer.Option(help="Another event log than the sample.")] = None,
    items: Annotated[Path | None, typer.Option(help="The catalogue of that log.")] = None,
) -> None:
    """Run everything on this machine with the sample log: broker, Redis, worker, API."""
    from interest_cli.demo import run_demo

    run_demo(settings(api_port=port), once=once, export=export, events=events, items=items)


def vector(
    user: Annotated[str, typer.Argument(help="User id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the numbers.")] = False,
) -> None:
    """Print a user's vector of the live model, and how old it is."""
    from interest_cli.looking import show_vector

    stopping.run(show_vector(settings(), user, as_json=as_json))


def recommend(
    user: Annotated[str, typer.Argument(help="User id.")],
    k: Annotated[int, typer.Option("-k", min=1, max=500, help="How many items.")] = 10,
    seen: Annotated[
        bool, typer.Option("--include-seen", help="Also items in the user's window.")
    ] = False,
    category: Annotated[str | None, typer.Option(help="Only items of this category.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recommend items to a user."""
    from interest_cli.looking import show_recommendations

    where = ItemFilter(category=category)
    stopping.run(
        show_recommendations(
            settings(), user, k, exclude_seen=not seen, where=where, as_json=as_json
        )
    )


def doctor() -> None:
    """Check what the product needs: say what is wrong, and what to do about it."""
    from interest_cli.doctor import diagnose

    findings = stopping.run(diagnose(settings()))
    for finding in findings:
        mark = "[green]ok[/]  " if finding.ok else "[bold red]bad[/] "
        out.print(mark, end="")
        out.print(f"{finding.subject}: {finding.text}", markup=False)
    bad = sum(not finding.ok for finding in findings)
    if bad:
        err.print(f"{bad} of {len(findings)} checks failed")
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (demo, worker, serve, vector, recommend, doctor):
        app.command()(command)
