"""Fill the frozen settings from the environment and a ``.env`` file, and document them.

The struct in ``interest/settings.py`` is the one list of settings: the pydantic-settings class
here is built from its field names, its constraints check the values, and its descriptions are
``docs/settings.md``. A variable of the environment outranks the ``.env`` file. The value of a
secret may lie in a file instead, as containers get theirs: ``INTEREST_…_FILE`` names it.

Write the documentation again with ``python -m interest_cli.env > docs/settings.md``.
"""

from __future__ import annotations

import difflib
import os
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from dotenv import dotenv_values
from msgspec import inspect
from pydantic import create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from interest.errors import BadInput
from interest.redaction import secret_fields
from interest.settings import Settings

PREFIX: Final = "INTEREST_"
_HINTS: Final[Mapping[str, Any]] = typing.get_type_hints(Settings, include_extras=True)
_SECRETS: Final = secret_fields(Settings)
#: What the name of a secret is followed by where its value lies in a file.
_IN_FILE: Final = "_file"
#: A secret is short; a longer file is another one than was meant.
_MOST_BYTES: Final = 1024 * 1024


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file_encoding="utf-8", extra="ignore")


# Every value arrives as text; the struct's own constraints turn it into what it must be.
_definitions: Final[dict[str, Any]] = dict.fromkeys(
    [*Settings.__struct_fields__, *(name + _IN_FILE for name in sorted(_SECRETS))],
    (str | None, None),
)
_read_all: Final[Callable[..., BaseSettings]] = create_model(
    "_AllSettings", __base__=_Environment, **_definitions
)


def load_settings(
    env_file: Path | None = Path(".env"),
    *,
    warn: Callable[[str], None],
    **overrides: Any,
) -> Settings:
    """Read every setting once.

    Args:
        env_file: a missing file is fine.
        warn: takes one line for each ``INTEREST_`` variable that is no setting.
        overrides: values of command-line options; they outrank everything, None is not given.

    Raises:
        BadInput: a value breaks its constraint, or the file cannot be read; one line that
            names the variable, the value and what is allowed.
    """
    try:
        read = _read_all(_env_file=env_file).model_dump(exclude_none=True)
        in_file = dotenv_values(env_file) if env_file is not None else {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{env_file} cannot be read: {error}") from error
    for name in sorted({*os.environ, *in_file}):
        field = name.lower().removeprefix(PREFIX.lower())
        if name.upper().startswith(PREFIX) and field not in _definitions:
            near = difflib.get_close_matches(field, _HINTS, n=1)
            hint = f"; did you mean {variable(near[0])}?" if near else ""
            warn(f"{name} is no setting and is ignored{hint}")
    read = _with_files(read)
    given = {name: value for name, value in overrides.items() if value is not None}
    values = {name: _convert(name, value) for name, value in {**read, **given}.items()}
    return Settings(**values)


def _with_files(read: Mapping[str, str]) -> dict[str, str]:
    """Put the contents of files in the place of their names; a last line break is not meant."""
    values = {name: value for name, value in read.items() if name in _HINTS}
    for name in sorted(read.keys() - values.keys()):
        field, path = name.removesuffix(_IN_FILE), read[name]
        if not path:
            continue
        if values.get(field):
            raise BadInput(f"{variable(field)} and {variable(name)} are both set; unset one")
        try:
            raw = Path(path).read_bytes()
            if len(raw) > _MOST_BYTES:
                raise BadInput(f"{variable(name)} {path} is too large for a secret")
            values[field] = raw.decode().rstrip("\r\n")
        except OSError as error:
            raise BadInput(
                f"{variable(name)} {path} cannot be read: {error.strerror or error}"
            ) from error
        except UnicodeDecodeError:
            raise BadInput(f"{variable(name)} {path} is no text in UTF-8") from None
    return values


def variable(field: str) -> str:
    """Give the environment variable of a setting."""
    return PREFIX + field.upper()


def settings_markdown() -> str:
    """Give the text of ``docs/settings.md``."""
    rows = [
        f"| `{variable(name)}` | {_secret(name)}{allowed(name)} | {_default(name)} "
        f"| {describe(name)} |"
        for name in _HINTS
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Every setting is an environment variable, or a line of a `.env` file in the working",
            "folder (the environment outranks the file). A wrong value stops the start with one",
            "line; an unknown `INTEREST_` variable is reported and ignored. This page is generated",
            "from `interest/settings.py`.",
            "",
            "A secret, marked so, is never shown or logged. Its value may lie in a file instead,",
            "as mounted secrets do: `INTEREST_REDIS_URL_FILE` names the file that holds the value",
            "of `INTEREST_REDIS_URL`.",
            "",
            "| variable | value | default | what it does |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def describe(field: str) -> str:
    """Give the description of a setting; empty where somebody forgot it."""
    info = inspect.type_info(_HINTS[field])
    extra = info.extra_json_schema if isinstance(info, inspect.Metadata) else None
    return str((extra or {}).get("description", ""))


def allowed(field: str) -> str:
    """Say in words what values a setting takes."""
    info = inspect.type_info(_HINTS[field])
    return _words(info.type if isinstance(info, inspect.Metadata) else info)


def _words(info: inspect.Type) -> str:
    match info:
        case inspect.LiteralType(values=values):
            return ", ".join(str(value) for value in values)
        case inspect.UnionType(types=types):
            return ", ".join(_words(type_) for type_ in types)
        case inspect.IntType() | inspect.FloatType():
            kind = "a whole number" if isinstance(info, inspect.IntType) else "a number"
            bounds = [
                f"{word} {bound}"
                for word, bound in (
                    ("above", info.gt), ("from", info.ge), ("below", info.lt), ("to", info.le),
                )
                if bound is not None
            ]  # fmt: skip
            return " ".join([kind, *bounds])
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType(min_length=min_length):
            return "text, not empty" if min_length else "text"
    raise TypeError(f"no words for a setting of type {info}")


def _convert(field: str, value: Any) -> Any:
    try:
        converted = msgspec.convert(value, _HINTS[field], strict=False)
    except msgspec.ValidationError as error:
        shown = "set to what it cannot be" if field in _SECRETS else repr(value)
        raise BadInput(f"{variable(field)} is {shown}, expected {allowed(field)}") from error
    if converted == float("inf"):
        raise BadInput(f"{variable(field)} is {value!r}, expected a finite number")
    return converted


def _secret(field: str) -> str:
    return "secret, " if field in _SECRETS else ""


def _default(field: str) -> str:
    default = Settings.__struct_defaults__[Settings.__struct_fields__.index(field)]
    return "empty" if default == "" else f"`{default}`"


if __name__ == "__main__":
    print(settings_markdown(), end="")
