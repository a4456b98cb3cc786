"""The ``interest`` command."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from interest.errors import InterestError
from interest_cli import (
    commands,
    data_commands,
    dead_letter_commands,
    evaluation_commands,
    model_commands,
    order_commands,
    service_commands,
)
from interest_cli.stopping import Stopped

app = typer.Typer(
    name="interest",
    help="Streaming user interest vectors: Kafka in, fresh vectors in Redis out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings come from INTEREST_… variables and a .env file; see docs/settings.md. "
    "Exit codes: 0 done, 1 failed, 2 wrong input, 3 a service is away, 4 topics do not fit, "
    "5 the worker must be started again, 130 interrupted.",
)
for group in (
    commands,
    data_commands,
    model_commands,
    evaluation_commands,
    dead_letter_commands,
    order_commands,
    service_commands,
):
    group.register(app)


def _print_version(value: bool) -> None:
    if value:
        print(f"interest-updater {version('interest-updater')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Configure what all commands share."""


def main() -> None:
    """Run the command; every expected error is one line and an exit code."""
    try:
        app()
    except InterestError as error:
        line = Text.assemble(("error: ", "bold red"), str(error))
        Console(stderr=True, soft_wrap=True).print(line)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`interest … | head`); that is no error.
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
