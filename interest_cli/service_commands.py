"""Commands for the servers of a development machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interest.errors import ServiceUnavailable
from interest_cli.console import out

if TYPE_CHECKING:
    from interest_cli.owner import RunningServer, RunningServices

services_app = typer.Typer(
    help="A real broker and Redis on this machine, for development; both in memory.",
    no_args_is_help=True,
)
State = Annotated[Path, typer.Option(help="Folder of their state.")]
KafkaPort = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
RedisPort = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
_FOLDER = Path(".interest")


@services_app.command("up")
def up(state: State = _FOLDER, kafka_port: KafkaPort = 9092, redis_port: RedisPort = 6379) -> None:
    """Start them; they stay up after this command. Where they run already, say where."""
    from interest_cli.services import services_up

    report = services_up(state, kafka_port=kafka_port, redis_port=redis_port)
    assert report.services is not None
    _show(report.services, "started" if report.changed else "running already")
    # Python's own print: rich would wrap or colour what is meant for a shell.
    print(*_exports(report.services), sep="\n")


@services_app.command("down")
def down(state: State = _FOLDER) -> None:
    """Stop them; everything that they hold is gone. None running is no error."""
    from interest_cli.services import services_down

    changed = services_down(state).changed
    out.print("stopped; what they held is gone" if changed else "not running")


@services_app.command("status")
def status(state: State = _FOLDER) -> None:
    """Say where they run; exit code 3 where they do not, or where one has died."""
    from interest_cli.services import services_status

    services = services_status(state).services
    if services is None:
        out.print("not running; `interest services up` starts them")
        raise typer.Exit(ServiceUnavailable.exit_code)
    _show(services, "running" if services.alive else "one has died")
    if not services.alive:
        raise typer.Exit(ServiceUnavailable.exit_code)


@services_app.command("env")
def env(state: State = _FOLDER) -> None:
    """Print the variables that point other commands at them: eval "$(interest services env)"."""
    from interest_cli.services import services_status

    services = services_status(state).services
    if services is None:  # standard output stays empty: a shell would execute it
        raise ServiceUnavailable("no services run here; `interest services up` starts them")
    print(*_exports(services), sep="\n")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(services_app, name="services")


def _show(services: RunningServices, what: str) -> None:
    out.print(f"{what}; in memory only: what they hold is gone when they stop")
    out.print(f"  kafka  {services.kafka_bootstrap}{_fate(services.kafka)}", markup=False)
    out.print(f"  redis  {services.redis_url}{_fate(services.redis)}", markup=False)


def _fate(server: RunningServer) -> str:
    return "" if server.alive else f"  died, see {server.log}"


def _exports(services: RunningServices) -> tuple[str, str]:
    return (
        f"export INTEREST_KAFKA_BOOTSTRAP={services.kafka_bootstrap}",
        f"export INTEREST_REDIS_URL={services.redis_url}",
    )
