"""Commands that ask the running workers for something."""

from __future__ import annotations

from typing import Annotated

import typer

from interest.errors import BadInput
from interest.event import MAX_ID_CHARS
from interest_cli import stopping
from interest_cli.console import out, settings

rebuild_app = typer.Typer(help="Make stored things anew from windows.", no_args_is_help=True)


def forget(user: Annotated[str, typer.Argument(help="User id, as events carry it.")]) -> None:
    """Forget a person: window, vectors, announcements, dead letters; late events are dropped.

    The request waits on the topic `forget` until workers have carried it out.
    """
    from streams.control import request_forget

    if not 1 <= len(user) <= MAX_ID_CHARS:
        raise BadInput(f"a user id has 1 to {MAX_ID_CHARS} characters")
    stopping.run(request_forget(settings(), user))
    out.print("the workers were asked; with all of them running it takes seconds")


@rebuild_app.command("vectors")
def rebuild_vectors() -> None:
    """Encode every user again whom a running worker holds, and write the vectors to Redis."""
    from streams.control import Order, give_order

    stopping.run(give_order(settings(), Order("rebuild")))
    out.print("the running workers were asked; interest_dirty_users tells how many are left")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(forget)
    app.add_typer(rebuild_app, name="rebuild")
