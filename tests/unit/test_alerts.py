"""The alarms: each over metrics that exist, each explained to whoever it wakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interest.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
PAGE = ROOT / "docs" / "operations.md"

#: What Prometheus' client and Prometheus itself give of every process.
STANDARD = {"process_start_time_seconds"}
LABELS = {"le", "job", "instance"}


def rules() -> dict[str, str]:
    """Give the expression of each alarm."""
    blocks = re.split(r"^ *- alert: ", RULES.read_text(encoding="utf-8"), flags=re.M)[1:]
    found = {}
    for block in blocks:
        expression = re.search(r"expr:(.*?)^ {8}(?:for|labels):", block, re.M | re.S)
        assert expression is not None, block
        found[block.split()[0]] = " ".join(expression[1].removeprefix(" >-").split())
    return found


def exposed() -> set[str]:
    """Give every name under which a metric of ours is read."""
    names: set[str] = set(STANDARD)
    for spec in METRICS:
        suffixes = ("_bucket", "_sum", "_count") if spec.kind == "histogram" else ("",)
        names.update(spec.name + suffix for suffix in suffixes)
    return names


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:interest|process)_\w+", expression))


@pytest.mark.parametrize("alarm", rules())
def test_an_alarm_is_about_metrics_and_labels_that_exist(alarm: str) -> None:
    expression = rules()[alarm]
    assert metrics_of(expression)
    assert metrics_of(expression) <= exposed()
    known = LABELS | {spec.label for spec in METRICS}
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    matched = re.findall(r"(\w+)=~?\"", expression)
    assert {label.strip() for group in grouped for label in group.split(",")} <= known
    assert set(matched) <= known


@pytest.mark.parametrize("alarm", rules())
def test_a_counter_is_never_compared_by_its_bare_value(alarm: str) -> None:
    """It starts at 0 with every restart: only what it gained says anything."""
    expression = rules()[alarm]
    for spec in METRICS:
        if spec.kind != "counter":
            continue
        bare = re.sub(rf"(?:rate|increase)\({spec.name}(?:{{[^}}]*}})?\[", "", expression)
        bare = bare.replace(f"({spec.name} unless {spec.name} offset", "")
        assert spec.name not in bare


@pytest.mark.parametrize("alarm", rules())
def test_a_summary_shows_only_labels_that_the_alarm_has(alarm: str) -> None:
    text = RULES.read_text(encoding="utf-8")
    block = text.split(f"- alert: {alarm}\n")[1].split("- alert: ")[0]
    expression = rules()[alarm]
    for label in re.findall(r"\$labels\.(\w+)", block):
        kept = re.findall(r"\bby \(([^)]*)\)", expression)
        assert not kept or all(label in group for group in kept)
        assert kept or not expression.startswith(("sum(", "absent("))


def test_every_alarm_is_explained_and_every_explanation_has_its_alarm() -> None:
    explained = re.findall(r"^#### (Interest\w+)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert sorted(explained) == sorted(rules())
    assert len(set(explained)) == len(explained)


def test_every_setting_that_the_operator_is_told_to_set_exists() -> None:
    from interest.settings import Settings

    known = {f"INTEREST_{name.upper()}" for name in Settings.__struct_fields__}
    pages = [*(ROOT / "docs").rglob("*.md"), RULES, ROOT / "README.md"]
    for page in pages:
        # A name that ends in an underscore stands for several.
        named = set(re.findall(r"\bINTEREST_[A-Z0-9_]*[A-Z0-9]\b(?!_?…)", page.read_text("utf-8")))
        unknown = {name.removesuffix("_FILE") for name in named - known} - known
        assert not unknown, page.name
