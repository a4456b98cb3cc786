"""Wrong arguments, missing services, broken files: one clear line, an exit code, no traceback."""

from __future__ import annotations

import gzip
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import EVENTS, ITEMS, interest

NOWHERE = {
    "INTEREST_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "INTEREST_REDIS_URL": "redis://127.0.0.1:1/0",
}


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("topics", "create"), ["127.0.0.1:1", "INTEREST_KAFKA_BOOTSTRAP"]),
        (("catalogue", "load", ITEMS), ["127.0.0.1:1"]),
        (("replay", EVENTS), ["127.0.0.1:1"]),
        (("worker",), ["Redis"]),
        (("vector", "u"), ["Redis"]),
        (("recommend", "u"), ["Redis"]),
    ],
)
def test_a_service_that_is_away_is_named(
    tmp_path: Path, args: tuple[object, ...], words: list[str]
) -> None:
    assert_one_line(interest(*args, cwd=tmp_path, env=NOWHERE), 3, *words)


def test_the_doctor_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    done = interest(
        "doctor", cwd=tmp_path, env={"INTEREST_TEXT_MODEL": str(tmp_path / "none"), **NOWHERE}
    )
    assert done.returncode == 1
    for line in ("ok  python", "ok  packages", "bad kafka", "bad redis", "bad text model"):
        assert line in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_model_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-model")
    done = interest(
        "replay", EVENTS, "--offline", "--items", ITEMS, "--out", tmp_path / "v.parquet",
        cwd=tmp_path, env={"INTEREST_TEXT_MODEL": missing},
    )  # fmt: skip
    assert_one_line(done, 3, missing)


def test_a_file_that_is_truncated_is_named(tmp_path: Path) -> None:
    cut = tmp_path / "events.jsonl.gz"
    cut.write_bytes(EVENTS.read_bytes()[:50_000])
    done = interest(
        "replay", cut, "--offline", "--items", ITEMS, "--out", tmp_path / "v.parquet", cwd=tmp_path
    )
    assert_one_line(done, 2, "events.jsonl.gz", "truncated")
    assert not (tmp_path / "v.parquet").exists()


def test_invalid_records_of_a_file_are_counted_and_unknown_fields_are_one_warning(
    tmp_path: Path,
) -> None:
    log = tmp_path / "events.jsonl.gz"
    good = '{"event_id":"%d","user_id":"u","item_id":"85123A","type":"click","ts":1,"colour":"red"}'
    lines = [good % i for i in range(3)]
    lines = [line.replace('"ts":1,', '"ts":1700000000000,') for line in lines] + ["{broken"]
    log.write_bytes(gzip.compress("\n".join(lines).encode()))
    done = interest(
        "replay", log, "--offline", "--items", ITEMS, "--out", tmp_path / "v.parquet", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "1 users written" in done.stdout
    assert "1 of them invalid" in done.stdout
    assert done.stderr.count("colour") == 1
    assert "events.jsonl.gz:4: malformed_json" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("replay", "missing.jsonl"), ["missing.jsonl"]),
        (("replay", ".", "--offline", "--items", ITEMS, "--out", "x"), ["folder"]),
        (("replay", EVENTS, "--speed", "fast"), ["fast", "max"]),
        (("replay", EVENTS, "--speed", "-1"), ["-1"]),
        (("replay", EVENTS, "--offline"), ["--items", "--out"]),
        (("replay", EVENTS, "--out", "x"), ["--offline"]),
        (("convert", "online-retail", "missing.csv", "out"), ["missing.csv"]),
        (("demo", "--once", "--events", "missing.jsonl"), ["missing.jsonl"]),
    ],
)
def test_wrong_arguments_are_explained(
    tmp_path: Path, args: tuple[object, ...], words: list[str]
) -> None:
    assert_one_line(interest(*args, cwd=tmp_path, env=NOWHERE), 2, *words)


def test_a_setting_with_a_wrong_value_is_named(tmp_path: Path) -> None:
    done = interest("topics", "create", cwd=tmp_path, env={"INTEREST_PARTITIONS": "many"})
    assert_one_line(done, 2, "INTEREST_PARTITIONS", "many", "whole number")


def test_settings_are_read_from_a_file_beside_the_user(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("INTEREST_KAFKA_BOOTSTRAP=127.0.0.1:2\n")
    assert_one_line(interest("topics", "create", cwd=tmp_path), 3, "127.0.0.1:2")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = interest("serve", "--port", port, cwd=tmp_path, env=NOWHERE)
    assert_one_line(done, 3, port, "in use")


def test_a_folder_with_files_of_our_names_changes_nothing(tmp_path: Path) -> None:
    for name in ("store.py", "cli.py", "streams.py", "encoder.py", "interest.py", "mode.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module was imported')\n")
    done = interest("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "interest-updater")
    found = interest("doctor", cwd=tmp_path, env=NOWHERE)
    assert "ok  packages" in found.stdout
    done = interest("demo", "--once", "--events", "missing.jsonl", cwd=tmp_path)
    assert_one_line(done, 2, "missing.jsonl")


def test_help_names_every_command(tmp_path: Path) -> None:
    text = interest("--help", cwd=tmp_path).stdout
    for command in (
        "demo", "worker", "serve", "topics", "catalogue", "replay", "vector", "recommend",
        "doctor", "services", "convert", "dead-letters",
    ):  # fmt: skip
        assert command in text
