"""What commands share: settings, output, progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from interest.settings import Settings
from interest_cli.env import load_settings
from interest_cli.logs import configure_logging

#: Results go here.
out = Console(highlight=False, soft_wrap=True)
#: Progress, warnings and errors go here, so that results can be piped.
err = Console(stderr=True, highlight=False, soft_wrap=True)


def warn(line: str) -> None:
    """Print one warning line."""
    err.print(Text.assemble(("warning: ", "bold yellow"), line))


def settings(**overrides: Any) -> Settings:
    """Load the settings, options of the command line first, and set up logging.

    Raises:
        BadInput: a variable has a value that it cannot have.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    loaded = load_settings(warn=warn, **given)
    configure_logging(loaded.log_level)
    return loaded


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a progress bar on standard error; nothing where that is no terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=False) as bar:
        yield bar
