"""What a run of the harness is told."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

BROKERS: Final = ("tansu", "kafka")
#: Promises that can be broken on purpose; see :mod:`tests.chaos.faults`.
FAULTS: Final = ("commit-first", "no-cas", "no-event-id", "last-record")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """One run: how long chaos lasts, its seed, and what it is made of.

    ``seconds`` is the length of the random part; the ``scripted`` cases come before it. ``rate``
    is in events per second, 0 for none but those that cases send themselves.
    """

    seconds: float = 60.0
    seed: int = 1
    broker: str = "tansu"
    workers: int = 3
    partitions: int = 8
    rate: int = 250
    scripted: tuple[str, ...] = ()
    fault: str = ""
    #: Keep the folder with the logs of workers and servers.
    keep: bool = False
    forget: Literal["auto", "no"] = "auto"

    def command(self) -> str:
        """Give the command that repeats this run."""
        made = f"make chaos SECONDS={self.seconds:g} SEED={self.seed} BROKER={self.broker}"
        if self.fault:
            made += f" ARGS='--fault {self.fault}'"
        return made


def parse(argv: Sequence[str], cases: Sequence[str]) -> Options:
    """Read the command line; ``cases`` are the names of the scripted cases."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=BROKERS, default="tansu")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--rate", type=int, default=250, help="events per second")
    parser.add_argument(
        "--scripted", default="all", help=f"all, none, or of: {', '.join(cases)} (by commas)"
    )
    parser.add_argument("--fault", choices=("", *FAULTS), default="", help="break a promise")
    parser.add_argument("--keep", action="store_true", help="keep logs")
    given = parser.parse_args(argv)
    if given.scripted == "all":
        chosen = tuple(cases)
    elif given.scripted in ("", "none"):
        chosen = ()
    else:
        chosen = tuple(given.scripted.split(","))
        unknown = set(chosen) - set(cases)
        if unknown:
            parser.error(f"no such case: {', '.join(sorted(unknown))}")
    return Options(
        seconds=given.seconds, seed=given.seed, broker=given.broker, workers=given.workers,
        partitions=given.partitions, rate=given.rate, scripted=chosen, fault=given.fault,
        keep=given.keep,
    )  # fmt: skip
