"""Commands for dead letters: look at them, send them again, remove them."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.text import Text

from interest.clock import system_clock
from interest.errors import BadInput
from interest.event import parse_time_ms
from interest_cli import stopping
from interest_cli.console import out, settings, warn
from interest_cli.letter_view import facts, one_line, printable, shown_time
from store.aes_sealer import sealer_of

if TYPE_CHECKING:
    from interest.settings import Settings
    from streams.dead_letter_desk import Selection
    from streams.redrive import RedriveReport

dead_letters_app = typer.Typer(
    help="Messages that broke the contract: list, show, redrive, purge.", no_args_is_help=True
)

Keys = Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys of letters.")]
Reason = Annotated[str, typer.Option(help="Only letters of this reason.")]
_AGO: Final = re.compile(r"(\d+)([smhd])")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SHOWN_CHARS: Final = 4_096


@dead_letters_app.command("list")
def list_(
    reason: Reason = "",
    user: Annotated[str, typer.Option(help="Only letters that carry this user id.")] = "",
    since: Annotated[
        str, typer.Option(help="Only later errors: 2026-01-31T12:00:00Z, or 90m, 12h, 7d ago.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many letters at most.")] = 100,
    count: Annotated[bool, typer.Option("--count", help="Only how many, by reason.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List dead letters."""
    from streams.dead_letter_desk import Selection

    chosen = Selection(reason=reason, user_id=user, since_ms=_moment(since))
    if count:
        _print_counts(stopping.run(_count(settings(), chosen)), as_json=as_json)
    else:
        stopping.run(_list(settings(), chosen, limit, as_json=as_json))


@dead_letters_app.command("show")
def show(
    key: Annotated[str, typer.Argument(help="The letter's key, as `list` prints it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, the value whole.")] = False,
) -> None:
    """Show one letter: why it is here, where it came from, and what it says."""
    from streams.dead_letter_desk import find

    options = settings()
    lying = stopping.run(find(options, key, sealer_of(options.encryption_keys)))
    known = facts(lying)
    if as_json:
        print(msgspec.json.encode(known).decode())
        return
    value = known.pop("value", None)
    known.pop("value_base64", None)
    for name, fact in known.items():
        out.print(f"{name:16} {one_line(fact)}", markup=False)
    if value is None:
        raw = lying.letter.value
        out.print("no value" if raw is None else f"{len(raw)} bytes, no UTF-8: see --json")
    else:
        out.print(printable(value[:_SHOWN_CHARS]), markup=False)
        if len(value) > _SHOWN_CHARS:
            out.print(f"… {len(value)} characters in all: see --json")


@dead_letters_app.command("redrive")
def redrive(
    keys: Keys = None,
    reason: Reason = "",
    everything: Annotated[bool, typer.Option("--all", help="All letters.")] = False,
) -> None:
    """Send letters again that are valid now; the others stay, with their new error."""
    from streams.redrive import redrive as send_again

    chosen = _choose(keys, reason=reason, everything=everything)
    options = settings()
    report = stopping.run(send_again(options, chosen, sealer_of(options.encryption_keys)))
    missing = sorted(chosen.keys - report.keys)
    for key in missing:
        warn(f"there is no dead letter {key}")
    _print_report(report)
    if missing:
        raise typer.Exit(BadInput.exit_code)


@dead_letters_app.command("purge")
def purge(
    keys: Keys = None,
    reason: Reason = "",
    before: Annotated[
        str, typer.Option(help="Only earlier errors: 2026-01-31T12:00:00Z, or 90m, 12h, 7d ago.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="All letters.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: what is removed is gone.")] = False,
) -> None:
    """Remove letters for good."""
    from streams.dead_letter_desk import purge as remove

    chosen = _choose(keys, reason=reason, before_ms=_moment(before), everything=everything)
    options = settings()
    if not yes:
        n = stopping.run(_count(options, chosen)).total()
        raise BadInput(f"this would remove {n} letters for good; add --yes to do it")
    n = stopping.run(remove(options, chosen, sealer_of(options.encryption_keys)))
    out.print(f"{n} letters removed")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(dead_letters_app, name="dead-letters")


def _choose(
    keys: list[str] | None, *, reason: str, everything: bool, before_ms: int | None = None
) -> Selection:
    from streams.dead_letter_desk import Selection

    narrowed = bool(keys or reason or before_ms is not None)
    if everything == narrowed:
        raise BadInput("say which letters: keys, or --reason and the like, or else --all")
    return Selection(keys=frozenset(keys or ()), reason=reason, before_ms=before_ms)


def _moment(text: str) -> int | None:
    """Read a time, or how long ago it was; Unix ms.

    Raises:
        BadInput: it is neither.
    """
    if not text:
        return None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return system_clock() - int(ago[1]) * _UNIT_MS[ago[2]]
    try:
        return parse_time_ms(text)
    except ValueError as error:
        raise BadInput(
            f"{text!r} is no time: write 2026-01-31T12:00:00Z, or 90m, 12h, 7d for how long ago"
        ) from error


async def _list(options: Settings, chosen: Selection, limit: int, *, as_json: bool) -> None:
    from streams.dead_letter_desk import letters

    n = 0
    async with aclosing(letters(options, chosen, sealer_of(options.encryption_keys))) as found:
        async for lying in found:
            if n == limit:
                warn(f"there are more than {limit}; see --limit and --count")
                break
            n += 1
            if as_json:
                print(msgspec.json.encode(facts(lying)).decode())
                continue
            last = lying.letter.last
            where = f"{one_line(lying.ref.key)}  {one_line(last.detail)}"
            out.print(
                Text.assemble(f"{shown_time(last.time_ms)}  ", (last.reason, "bold"), "  ", where)
            )
    if not n and not as_json:
        out.print("no dead letters" if chosen == type(chosen)() else "no such dead letters")


async def _count(options: Settings, chosen: Selection) -> Counter[str]:
    from streams.dead_letter_desk import letters

    counts: Counter[str] = Counter()
    async for lying in letters(options, chosen, sealer_of(options.encryption_keys)):
        counts[lying.letter.last.reason] += 1
    return counts


def _print_counts(counts: Counter[str], *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(dict(counts)).decode())
        return
    for reason, n in _ranked(counts):
        out.print(f"{n:>10,}  {reason}")
    out.print(f"{counts.total():>10,}  in all")


def _print_report(report: RedriveReport) -> None:
    sent = ", ".join(f"{n} to {topic}" for topic, n in sorted(report.sent.items()))
    out.print(f"{report.sent.total()} sent again" + (f": {sent}" if sent else ""))
    if report.superseded:
        out.print(f"{report.superseded} items removed: a newer message of them has come since")
    if report.refused:
        reasons = ", ".join(f"{reason} {n}" for reason, n in _ranked(report.refused))
        out.print(f"{report.refused.total()} still invalid: {reasons}")


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
