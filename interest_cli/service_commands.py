"""Commands for the servers of a development machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

services_app = typer.Typer(
    help="A real broker and Redis on this machine, for development; both in memory.",
    no_args_is_help=True,
)
State = Annotated[Path, typer.Option(help="Folder of their state.")]
_FOLDER = Path(".interest")


@services_app.command("up")
def up(
    state: State = _FOLDER,
    kafka_port: Annotated[int, typer.Option(help="0 takes a free one.")] = 9092,
    redis_port: Annotated[int, typer.Option(help="0 takes a free one.")] = 6379,
) -> None:
    """Start them; they stay up after this command."""
    from interest_cli.services import services_up

    _show(services_up(state, kafka_port=kafka_port, redis_port=redis_port))


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(services_app, name="services")
