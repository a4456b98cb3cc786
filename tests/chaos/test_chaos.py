"""A short run on each broker, and runs with a promise broken on purpose, which must fail."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.chaos.processes import ROOT
from tests.servers import KAFKA_START

pytestmark = pytest.mark.timeout(600)

#: Fault → the case that meets it, and the count that must rise.
BROKEN = {
    "commit-first": ("killed-before-changelog", "lost"),
    "no-cas": ("zombie-upsert", "stale"),
    "no-event-id": ("killed-after-changelog", "doubled"),
    "last-record": ("zombie-changelog", "lost"),
}

_RUN_S = 400.0
_WAIT_S = 120.0

Outcome = Future[tuple[int, str]]


@contextmanager
def chaos(*args: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the harness; whatever happens, it is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.chaos", *args],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(*args: str, folder: Path) -> tuple[int, str]:
    """Run the harness to its end; give exit code and output."""
    with chaos(*args, folder=folder) as process:
        output, _ = process.communicate(timeout=_RUN_S)
        return process.returncode, output


def counted(output: str, name: str) -> int:
    """Read a count of the last line of a run."""
    found = re.search(rf"^events .*\b{name} (\d+)", output, re.MULTILINE)
    assert found, output
    return int(found[1])


@pytest.mark.parametrize("broker", ["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_a_short_run_loses_nothing_doubles_nothing_and_leaves_nothing_stale(
    broker: str, tmp_path: Path
) -> None:
    if broker == "kafka" and not KAFKA_START.exists():
        pytest.skip(f"no Apache Kafka: {KAFKA_START} does not exist (set KAFKA_START)")
    code, output = run(
        "--seconds", "20", "--seed", "7", "--broker", broker, "--rate", "150",
        "--scripted", "zombie-changelog,empty-redis", folder=tmp_path,
    )  # fmt: skip
    assert code == 0, output
    assert [counted(output, name) for name in ("lost", "doubled", "stale")] == [0, 0, 0]
    assert counted(output, "dead") == counted(output, "sent") > 0
    assert counted(output, "kills") > 0


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Runs with each promise broken, two at a time: they wait for time-outs, not for a core."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            fault: pool.submit(
                run, "--seconds", "0", "--rate", "0", "--workers", "2", "--partitions", "4",
                "--scripted", case, "--fault", fault, folder=tmp_path_factory.mktemp(fault),
            )
            for fault, (case, _) in BROKEN.items()
        }  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_promise_is_noticed(fault: str, broken: dict[str, Outcome]) -> None:
    code, output = broken[fault].result()
    assert code == 1, output
    assert counted(output, BROKEN[fault][1]) > 0
    assert f"ARGS='--fault {fault}'" in output  # how to repeat it


def test_an_interrupted_run_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    with chaos("--seconds", "300", "--scripted", "none", folder=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "workers" in line:  # the first line of progress: everything runs
                break
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 5, children  # zygote and workers, reader, Redis, broker
        process.send_signal(signal.SIGINT)
        assert process.wait(_WAIT_S) == 130
    deadline = time.monotonic() + _WAIT_S
    while any(child.is_running() for child in children) and time.monotonic() < deadline:
        psutil.wait_procs(children, timeout=0.1)
    assert not [child for child in children if child.is_running()]
    assert not list(tmp_path.glob("chaos-*"))
