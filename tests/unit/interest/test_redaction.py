"""Nothing that is printed shows a secret."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.pretty import pretty_repr

from interest.redaction import secret_fields, shown_url
from interest.settings import Settings

PASSWORD = "s3cret/wo@rd"
#: A setting of such a name holds a secret, unless it names a file.
_SECRET_NAME = re.compile(r"(password|secret|token|keys?)$")


def test_every_setting_that_sounds_secret_is_marked() -> None:
    sounding = {name for name in Settings.__struct_fields__ if _SECRET_NAME.search(name)}
    assert sounding
    assert sounding <= secret_fields(Settings)


def test_no_way_to_print_the_settings_shows_a_secret() -> None:
    values: dict[str, Any] = dict.fromkeys(secret_fields(Settings), PASSWORD)
    values["redis_url"] = f"redis://user:{PASSWORD}@host:6379/0"
    settings = Settings(**values, qdrant_url=f"https://user:{PASSWORD}@qdrant")
    for text in (repr(settings), str(settings), f"{settings}", pretty_repr(settings)):
        assert PASSWORD not in text
        assert "redis://host:6379/0" in text
        assert "https://qdrant" in text
        assert "kafka_bootstrap" in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://:pw@host:1/0", "redis://host:1/0"),
        ("rediss://user:p/w@h/w@host/0", "rediss://host/0"),
        ("redis://host?password=pw&db=1", "redis://host?password=(hidden)&db=1"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown
