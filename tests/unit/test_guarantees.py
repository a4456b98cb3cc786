"""The page of guarantees names tests that exist, and the promises that we make."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(("path", "name"), NAMED, ids="::".join)
def test_a_test_that_proves_a_promise_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in tree.body if isinstance(node, functions)}


def test_each_of_the_nine_promises_names_a_test() -> None:
    text = PAGE.read_text(encoding="utf-8")
    promises = re.findall(r"^### (\d)\. .*?\n(.*?)(?=^##)", text, re.M | re.S)
    assert [number for number, _ in promises] == [str(n) for n in range(1, 10)]
    assert not [number for number, body in promises if "`tests/" not in body]


def test_the_chaos_cases_and_faults_that_are_named_exist() -> None:
    from tests.chaos.options import FAULTS
    from tests.chaos.scripted import CASES

    text = PAGE.read_text(encoding="utf-8")
    lines = " ".join(re.findall(r"^- chaos: .*(?:\n  .*)*", text, re.M))
    named = set(re.findall(r"`([a-z-]+)`", lines))
    assert named <= {*CASES, *FAULTS}
    assert set(FAULTS) <= named


def test_links_of_the_documents_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken
