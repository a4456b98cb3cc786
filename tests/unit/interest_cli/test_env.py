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


def test_a_secret_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(" two words \r\n\n")
    Path(".env").write_text(f"INTEREST_QDRANT_API_KEY_FILE={secret}\n")
    monkeypatch.setenv("INTEREST_KAFKA_PASSWORD_FILE", str(secret))
    monkeypatch.setenv("INTEREST_API_KEYS_FILE", "")
    monkeypatch.setenv("INTEREST_KAFKA_PASSWORD", "")
    settings = load()
    assert settings == Settings(kafka_password=" two words ", qdrant_api_key=" two words ")


def test_only_secrets_may_lie_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTEREST_GROUP_ID_FILE", "/etc/hostname")
    warnings: list[str] = []
    assert load_settings(warn=warnings.append) == Settings()
    assert warnings[0].startswith("INTEREST_GROUP_ID_FILE is no setting and is ignored")


def test_a_secret_and_a_file_for_it_are_one_too_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("b-hidden")
    monkeypatch.setenv("INTEREST_KAFKA_PASSWORD", "a-hidden")
    monkeypatch.setenv("INTEREST_KAFKA_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(BadInput) as caught:
        load()
    assert str(caught.value) == (
        "INTEREST_KAFKA_PASSWORD and INTEREST_KAFKA_PASSWORD_FILE are both set; unset one"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read: No such file"), (b"\xff", "is no text"), (b"x" * 2_000_000, "large")],
)
def test_a_file_that_holds_no_secret_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("INTEREST_QDRANT_API_KEY_FILE", str(path))
    with pytest.raises(BadInput, match=f"INTEREST_QDRANT_API_KEY_FILE .*{says}"):
        load()


def test_a_secret_that_cannot_be_is_not_repeated() -> None:
    with pytest.raises(BadInput) as caught:
        load(redis_url=["redis://:s3cret@host"])
    assert str(caught.value).startswith("INTEREST_REDIS_URL is set to what it cannot be, expected")
    assert "s3cret" not in str(caught.value)
