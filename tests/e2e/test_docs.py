"""What README and docs show works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from interest.event import decode_event
from tests.e2e.conftest import interest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    """Give the code blocks of a language on all pages."""
    return [
        block
        for page in PAGES
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)
    ]


def test_every_event_that_is_shown_is_valid() -> None:
    shown = blocks("json")
    assert shown
    for block in shown:
        for line in block.strip().splitlines():
            decode_event(json.dumps(json.loads(line)).encode())


def test_every_python_block_runs(tmp_path: Path) -> None:
    shown = blocks("python")
    assert len(shown) >= 2
    for i, block in enumerate(shown):
        (tmp_path / f"test_block_{i}.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def commands() -> list[list[str]]:
    """Give every ``interest`` command line in the shell blocks."""
    found: list[list[str]] = []
    for block in blocks("sh"):
        for line in block.splitlines():
            if line.startswith("interest "):
                words = shlex.split(line, comments=True)
                found.append([word for word in words[1:] if word != "&"])
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_that_is_shown_exists_with_its_options(
    words: list[str], tmp_path: Path
) -> None:
    subcommand = [w for w in words if not w.startswith("-")][: 2 if words[0] in GROUPS else 1]
    text = interest(*subcommand, "--help", cwd=tmp_path)
    assert text.returncode == 0, text.stderr
    for option in (word for word in words if word.startswith("-")):
        assert option in text.stdout


GROUPS = {"topics", "catalogue", "convert", "services", "dead-letters", "model"}


def test_every_make_target_that_is_shown_exists() -> None:
    text = subprocess.run(
        ["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True
    ).stdout
    targets = {word for block in blocks("sh") for word in re.findall(r"^make (\w+)", block, re.M)}
    assert {"demo", "test", "check", "bench"} <= targets
    assert not [target for target in targets if f"make {target}" not in text]


def test_the_compose_file_runs_commands_that_exist(tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for command in re.findall(r"command: \[interest, (\w+)\]", text):
        assert interest(command, "--help", cwd=tmp_path).returncode == 0
    assert "command: [interest, worker]" in text
    assert "command: [interest, serve]" in text
    one_off = (ROOT / "deploy" / "load-sample").read_text()
    for line in re.findall(r"^interest (\w+ \w+|\w+)", one_off, re.M):
        words = line.split() if line.split()[0] in GROUPS else line.split()[:1]
        assert interest(*words, "--help", cwd=tmp_path).returncode == 0
