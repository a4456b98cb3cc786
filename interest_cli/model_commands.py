"""Commands around model bundles: make one, and look at those that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from interest.bundle import ModelBundle
from interest.errors import BadInput
from interest_cli.console import err, out, progress_bar, settings, warn

model_app = typer.Typer(help="Make and look at model bundles.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]


def train(
    log: Annotated[
        Path,
        typer.Argument(
            help="Event log, or a folder with items.tsv and sequences.tsv; see docs/models.md."
        ),
    ],
    output: Annotated[Path, typer.Option("--out", help="Folder of the bundle; it is made.")],
    items: Annotated[Path | None, typer.Option(help="The catalogue of an event log.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Parameters that differ from the defaults (TOML, JSON).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bundle.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was interrupted.")
    ] = False,
    leave_out: Annotated[
        int, typer.Option(min=0, help="Newest events of each user that are not read, for a test.")
    ] = 0,
    hold_out_items: Annotated[
        float | None,
        typer.Option(min=0, max=0.9, help="Share of the items that are kept from training."),
    ] = None,
    licence: Annotated[
        list[str] | None, typer.Option(help="A note on the licence of the data; repeat for more.")
    ] = None,
) -> None:
    """Train a model bundle from an event log, without labels."""
    from interest_cli.training import TrainingRun, train_bundle

    run = TrainingRun(
        log=log, items=items, output=output, config=config, seed=seed, resume=resume,
        leave_out=leave_out, hold_out_items=hold_out_items, licences=tuple(licence or ()),
    )  # fmt: skip
    try:
        bundle = train_bundle(run, settings())
    except KeyboardInterrupt:
        warn("interrupted; the same command with --resume goes on from the last whole epoch")
        raise
    out.print(f"bundle {bundle.model_id}, {bundle.dim} dimensions, written to {output}")


@model_app.command("fit")
def fit(
    items: Annotated[
        Path, typer.Argument(help="The catalogue: JSON lines, or a folder with items.tsv.")
    ],
    output: Annotated[Path, typer.Option("--out", help="Folder of the bundle; it is made.")],
) -> None:
    """Fit the encoder that needs no training on a catalogue: whitening and title terms."""
    from interest_cli.fitting import fit_bundle

    with progress_bar() as bar:
        task = bar.add_task("texts", total=None, note="")
        bundle = fit_bundle(
            items, output, settings(),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    out.print(f"bundle {bundle.model_id}, {bundle.dim} dimensions, written to {output}")


@model_app.command("list")
def list_bundles(
    folder: Annotated[Path, typer.Argument(help="Folder that holds bundles.")],
) -> None:
    """List the bundles in a folder; damaged ones are named and left out (exit code 2)."""
    from interest.bundle_file import find_bundles, read_bundle

    table = Table("model id", "folder", "encoder", "dim", "NDCG@10 (validation)", box=None)
    n_bad = 0
    for path in find_bundles(folder):
        try:
            bundle = read_bundle(path)
        except BadInput as error:
            warn(str(error))
            n_bad += 1
            continue
        training = bundle.config.training
        ndcg = training.metrics.get("ndcg@10") if training else None
        table.add_row(
            bundle.model_id, str(path), bundle.config.user_encoder, str(bundle.dim),
            "" if ndcg is None else f"{ndcg:.4f}",
        )  # fmt: skip
    if table.row_count:
        out.print(table)
    elif not n_bad:
        err.print(f"no bundle in {folder}")
    if n_bad:
        raise typer.Exit(2)


@model_app.command("show")
def show_bundle(bundle: Folder) -> None:
    """Print what a bundle says of itself, as JSON."""
    from interest.bundle_file import read_bundle

    described = read_bundle(bundle)
    shown = {"model_id": described.model_id, "dim": described.dim, "config": described.config}
    out.print_json(msgspec.json.encode(shown).decode())


@model_app.command("verify")
def verify_bundle(bundle: Folder) -> None:
    """Hold the numbers of a bundle, and its text model on this machine, against its hashes."""
    verified = _verify(bundle)
    out.print(f"{bundle} is whole: {verified.model_id}, {verified.dim} dimensions")


def _verify(folder: Path) -> ModelBundle:
    # torch and transformers take seconds to import; commands that compute nothing do without.
    from encoder.bundle_folder import load_bundle_folder
    from encoder.factory import text_encoder_of

    options = settings()
    bundle = load_bundle_folder(folder).bundle
    text_encoder_of(bundle.config.text_model, options.text_model, options.device)
    return bundle


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(train)
    app.add_typer(model_app, name="model")
