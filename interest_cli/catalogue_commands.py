"""The ``interest catalogue`` commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from interest.errors import BadInput, InvalidItem
from interest.item import Item, decode_item
from interest.settings import Settings
from interest_cli import stopping
from interest_cli.console import out, progress_bar, settings, warn
from interest_cli.files import InvalidRecord, RecordFile

if TYPE_CHECKING:
    from streams.publish import Outgoing

#: So many invalid lines are shown one by one.
_SHOWN: Final = 20
#: So many invalid lines at the start, and no valid one, and the file is the wrong one.
_HOPELESS: Final = 100
#: The bar moves after so many lines.
_TICK: Final = 500

catalogue_app = typer.Typer(help="Publish the catalogue.", no_args_is_help=True)


@catalogue_app.command("load")
def catalogue_load(
    file: Annotated[Path, typer.Argument(help="JSON Lines (plain, gzip, zstd) or Parquet.")],
    everything: Annotated[
        bool,
        typer.Option("--all", help="Publish what is unchanged, too: for a new text model."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show how far the workers are, until all is encoded.")
    ] = False,
    rejects: Annotated[
        Path | None, typer.Option(help="Where invalid lines are written, with their reasons.")
    ] = None,
) -> None:
    """Publish the items of a file that are new or changed; workers encode them.

    Interrupted, it goes on where it stopped when it is run again.
    """
    options = settings()
    records = RecordFile(file, Item, warn)
    with Rejects(rejects) as invalid:
        try:
            n, n_unchanged = stopping.run(_load(options, records, invalid, everything))
        except stopping.Stopped:
            warn("stopped; run the same command again to go on where it stopped")
            raise
        out.print(f"{n} items published, {n_unchanged} unchanged{invalid.summary()}")
    if wait:
        _wait(options)


class Rejects:
    """Reports invalid lines of an item file, the first ones each, and writes them all to a file.

    Each is a line of JSON: ``line``, ``reason``, ``detail`` and the ``record`` as text.
    """

    def __init__(self, path: Path | None) -> None:
        self.n = 0
        self._path = path
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Rejects:
        if self._path is not None:
            try:
                self._file = self._stack.enter_context(self._path.open("wb"))
            except OSError as error:
                raise BadInput(f"--rejects {self._path}: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, record: InvalidRecord) -> None:
        """Take one."""
        self.n += 1
        if self.n <= _SHOWN:
            warn(f"{record.path}:{record.line}: {record.reason}: {record.detail}")
        if self._file is not None:
            told = {
                "line": record.line,
                "reason": record.reason,
                "detail": record.detail,
                "record": record.raw.decode(errors="replace"),
            }
            self._file.write(msgspec.json.encode(told) + b"\n")

    def summary(self) -> str:
        """Say how many there were."""
        if not self.n:
            return ""
        where = f", see {self._path}" if self._path else ", --rejects FILE lists them all"
        return f", {self.n} invalid lines left out" + (where if self.n > _SHOWN else "")


def valid_items(file: RecordFile, invalid: Rejects) -> Iterator[Outgoing]:
    """Key the items of a file by their id; invalid lines are reported and left out.

    Raises:
        BadInput: nothing is valid from the start: the file is something else.
    """
    from streams.publish import Outgoing

    n_valid = 0
    for line, raw in file:
        try:
            item = decode_item(raw)
        except InvalidItem as error:
            invalid.add(InvalidRecord(file.path, line, error.reason, error.detail, raw))
            if invalid.n == _HOPELESS and not n_valid:
                raise BadInput(
                    f"{file.path}: the first {_HOPELESS} lines are no items; is it another kind of "
                    "file? (`interest convert` makes items of public data sets)"
                ) from error
        else:
            n_valid += 1
            yield Outgoing(raw, item.item_id)


async def _load(
    options: Settings, file: RecordFile, invalid: Rejects, everything: bool
) -> tuple[int, int]:
    from streams.catalogue_topic import only_changed, published_items
    from streams.publish import publish

    n_unchanged = 0
    with progress_bar() as bar:
        held: dict[str, bytes] = {}
        if not everything:
            comparing = bar.add_task("published before", total=None, note="")

            def on_read(n: int) -> None:
                bar.advance(comparing, n)
                bar.update(comparing, note=f"{int(bar.tasks[0].completed):,}")

            held = await published_items(options, on_read)
            bar.update(comparing, total=1, completed=1)
        task = bar.add_task("items", total=file.total_bytes, note="")

        def on_unchanged() -> None:
            nonlocal n_unchanged
            n_unchanged += 1

        def watched(items: Iterator[Outgoing]) -> Iterator[Outgoing]:
            for n, item in enumerate(items, start=1):
                if n % _TICK == 0:
                    bar.update(task, completed=file.bytes_read, note=f"{n:,}")
                yield item
            bar.update(task, completed=file.bytes_read)

        items = only_changed(watched(valid_items(file, invalid)), held, on_unchanged)
        return await publish(options, "items", items), n_unchanged


def _wait(options: Settings) -> None:
    from streams.catalogue_topic import follow_encoding

    with progress_bar() as bar:
        task = bar.add_task("encoded", total=None, note="waiting for a worker")
        total = 0

        def on_left(left: int) -> None:
            nonlocal total
            total = max(total, left)
            done = total - left
            note = f"{done:,} of {total:,}" if done or not left else "waiting for a worker"
            bar.update(task, total=total, completed=done, note=note)

        try:
            stopping.run(follow_encoding(options, on_left))
        except stopping.Stopped:
            warn("workers go on without this command")
            raise
    out.print("all items are encoded, stored and announced")
