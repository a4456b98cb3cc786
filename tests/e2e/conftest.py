"""The ``interest`` command as a user runs it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from interest_cli.convert import SAMPLE_FOLDER

INTEREST = str(Path(sys.executable).with_name("interest"))
EVENTS = SAMPLE_FOLDER / "events.jsonl.gz"
ITEMS = SAMPLE_FOLDER / "items.jsonl.gz"
_TIMEOUT_S = 180


def environment(settings: Mapping[str, str] | None) -> dict[str, str]:
    """Give an environment in which only the named settings are made."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith("INTEREST_")}
    return {**kept, "COLUMNS": "200", **(settings or {})}


def interest(
    *args: object, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [INTEREST, *map(str, args)],
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition, and fail when the deadline is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Running:
    """A command that goes on until it is told to stop."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text()

    def says(self, text: str, seconds: float = 90.0) -> None:
        until(lambda: text in self.output or self.process.poll() is not None, repr(text), seconds)
        assert text in self.output, self.output

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running(*args: object, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run a command in the background; it is killed when the block ends."""
    log = cwd / f"{args[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [INTEREST, *map(str, args)],
            cwd=cwd,
            env=environment(env),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield Running(process, log)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def processes_of(folder: Path) -> list[str]:
    """Give the processes that were started for a folder: it is in their command or is theirs."""
    found: list[str] = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(str(folder) in word for word in words):
            found.append(" ".join(words))
    return found


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the sample's catalogue."""
    folder = tmp_path_factory.mktemp("fitted")
    done = interest("model", "fit", ITEMS, "--out", "bundle", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "bundle"


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory, fitted: Path) -> Path:
    """The sample, replayed offline: the vectors and windows that every live run must give."""
    folder = tmp_path_factory.mktemp("offline")
    output = folder / "offline.parquet"
    done = interest("replay", EVENTS, "--offline", "--items", ITEMS, "--out", output, cwd=folder,
                    env={"INTEREST_BUNDLE": str(fitted)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return output
