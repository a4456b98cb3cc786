"""What may be shown: secrets of the settings never are, and an address is without its password."""

from __future__ import annotations

import re
import typing
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

#: The ``extra`` of a setting's ``Meta`` that keeps its value out of everything that is printed.
SECRET: Final = {"secret": True}
HIDDEN: Final = "(hidden)"

#: Greedy: a password that is not percent-encoded may hold anything.
_USER_INFO: Final = re.compile(r"//.*@", re.DOTALL)
#: ``redis://host?password=…`` is a valid place too.
_QUERY_SECRET: Final = re.compile(r"([?&](?:password|username)=)[^&#]*", re.IGNORECASE)


@cache
def secret_fields(settings: type[msgspec.Struct]) -> frozenset[str]:
    """Name the fields of a settings class whose values must not be shown."""
    hints = typing.get_type_hints(settings, include_extras=True)
    return frozenset(name for name, hint in hints.items() if _is_secret(hint))


def _is_secret(hint: Any) -> bool:
    info = inspect.type_info(hint)
    return isinstance(info, inspect.Metadata) and bool((info.extra or {}).get("secret"))


def shown_url(url: str) -> str:
    """Give an address as it may be shown: without user and password."""
    return _QUERY_SECRET.sub(rf"\1{HIDDEN}", _USER_INFO.sub("//", url))
