"""Settings from the environment, and their documentation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from interest.errors import BadInput
from interest.settings import Settings
from interest_cli.env import PREFIX, allowed, describe, load_settings, settings_markdown

DOCS = Path(__file__).parents[3] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def load(**overrides: Any) -> Settings:
    return load_settings(warn=pytest.fail, **overrides)


def test_without_variables_every_setting_has_its_default() -> None:
    assert load() == Settings()


def test_options_outrank_the_environment_and_that_outranks_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text(
        "# a comment\nINTEREST_PARTITIONS=3\nINTEREST_API_PORT=1\nINTEREST_GROUP_ID='a b'\n"
    )
    monkeypatch.setenv("INTEREST_API_PORT", "2")
    monkeypatch.setenv("INTEREST_WORKER_PORT", "2")
    settings = load(worker_port=4, api_host=None)
    assert settings == Settings(partitions=3, api_port=2, group_id="a b", worker_port=4)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("API_PORT", "70000", "expected a whole number from 0 to 65535"),
        ("API_PORT", "http", "expected a whole number from 0 to 65535"),
        ("API_PORT", "", "expected a whole number from 0 to 65535"),
        ("SESSION_TIMEOUT_S", "0", "expected a number above 0"),
        ("SESSION_TIMEOUT_S", "nan", "expected a number above 0"),
        ("CHECKPOINT_MAX_S", "inf", "expected a finite number"),
        ("LOG_LEVEL", "loud", "expected debug, error, info, warning"),
        ("TEXT_POOLING", "max", "expected first, last, mean, auto"),
        ("KAFKA_BOOTSTRAP", "", "expected text, not empty"),
    ],
)
def test_a_wrong_value_gives_one_line_with_variable_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(BadInput) as caught:
        load()
    assert str(caught.value) == f"{PREFIX}{name} is {value!r}, {says}"


def test_an_unknown_variable_gives_one_line_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INTEREST_API_PROT", "8080")
    Path(".env").write_text("INTEREST_ZZZZZZ=1\nOTHER=1\n")
    warnings: list[str] = []
    assert load_settings(warn=warnings.append) == Settings()
    assert warnings == [
        "INTEREST_API_PROT is no setting and is ignored; did you mean INTEREST_API_PORT?",
        "INTEREST_ZZZZZZ is no setting and is ignored",
    ]


def test_a_file_that_is_not_utf8_is_refused() -> None:
    Path(".env").write_bytes(b"INTEREST_GROUP_ID=caf\xe9\n")
    with pytest.raises(BadInput, match="cannot be read"):
        load()


@pytest.mark.parametrize("field", Settings.__struct_fields__)
def test_every_setting_says_what_it_does_and_what_it_takes(field: str) -> None:
    assert describe(field).endswith("."), f"give {field} a Meta(description=...)"
    assert allowed(field)


def test_the_settings_page_is_up_to_date() -> None:
    assert DOCS.read_text(encoding="utf-8") == settings_markdown(), (
        "run: python -m interest_cli.env > docs/settings.md"
    )
