"""Keys of the HTTP API: who may read, and who may administer.

A key is random text that its holder sends as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.
Only digests are kept in memory. A digest of one fast hash is enough, since keys are long and
random, not chosen by people.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from fastapi import HTTPException, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from interest import metrics as m
from interest.errors import BadInput
from interest.ports import Metrics
from interest.settings import Settings

log = logging.getLogger(__name__)

#: 16 characters of 64 kinds are 96 bits.
MIN_KEY_CHARS: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER: Final = "X-API-Key"
_SHAPE: Final = "expected `name:read:key` or `name:admin:key`"


class Scope(StrEnum):
    """What a key allows; admin includes read."""

    READ = "read"
    ADMIN = "admin"


class ApiKey(msgspec.Struct, frozen=True):
    """One key, without itself."""

    name: str
    scope: Scope
    digest: bytes

    def allows(self, scope: Scope) -> bool:
        """Tell whether this key's scope includes another."""
        return self.scope is Scope.ADMIN or scope is Scope.READ


class ApiKeys:
    """The keys of an installation; without any the API is open."""

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self._keys = tuple(keys)

    @classmethod
    def parse(cls, text: str) -> ApiKeys:
        """Read the setting ``api_keys``; blank lines and those that begin with ``#`` are skipped.

        Raises:
            BadInput: an entry has another shape, a name comes twice, or a key is too short; the
                line tells which entry by its name or number, never by its key.
        """
        entries = [
            entry.strip()
            for line in text.splitlines()
            if not line.lstrip().startswith("#")
            for entry in line.split(",")
            if entry.strip()
        ]
        keys = [_parse_entry(entry, number) for number, entry in enumerate(entries, start=1)]
        for one in ("name", "digest"):
            values = [getattr(key, one) for key in keys]
            for key, value in zip(keys, values, strict=True):
                if values.count(value) > 1:
                    raise BadInput(f"INTEREST_API_KEYS: the {_WORD[one]} of {key.name} comes twice")
        return cls(keys)

    def __bool__(self) -> bool:
        """Tell whether a key is asked for."""
        return bool(self._keys)

    def find(self, presented: str) -> ApiKey | None:
        """Give the key that was presented; takes the same time whichever it is, or none."""
        digest = _digest(presented)
        found: ApiKey | None = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found


_WORD: Final = {"name": "name", "digest": "key"}


def _parse_entry(entry: str, number: int) -> ApiKey:
    name, scope, key = (*entry.split(":", 2), "", "")[:3]
    if not _NAME.fullmatch(name) or scope not in tuple(Scope) or not key:
        raise BadInput(f"INTEREST_API_KEYS, entry {number}: {_SHAPE}")
    if len(key) < MIN_KEY_CHARS or not key.isascii() or not key.isprintable() or " " in key:
        raise BadInput(
            f"INTEREST_API_KEYS: the key of {name} needs at least {MIN_KEY_CHARS} printable ASCII "
            "characters and no spaces; `openssl rand -hex 32` makes one"
        )
    return ApiKey(name, Scope(scope), _digest(key))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def keys_of(settings: Settings) -> ApiKeys:
    """Read the keys, and refuse to be open where other machines reach the API.

    Raises:
        BadInput: the keys are malformed, or the address is public and nothing guards the API.
    """
    keys = ApiKeys.parse(settings.api_keys)
    if not keys and not is_loopback(settings.api_host):
        if not settings.api_open:
            raise BadInput(
                f"other machines reach INTEREST_API_HOST {settings.api_host or '(every address)'}, "
                "and the API has no keys: set INTEREST_API_KEYS or INTEREST_API_KEYS_FILE, or "
                "INTEREST_API_OPEN=true where something in front guards it"
            )
        log.warning("the API asks for no key on %s: INTEREST_API_OPEN is set", settings.api_host)
    return keys


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's own; a name is, if all it stands for is."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None) if host else []
    except OSError:
        return False
    return bool(found) and all(
        ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found
    )


_Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, description="An API key as a bearer token.")),
]
_Header = Annotated[
    str | None,
    Security(APIKeyHeader(name=_HEADER, auto_error=False, description="An API key.")),
]

Guard = Callable[[Request, _Bearer, _Header], Awaitable[None]]


def guard(keys: ApiKeys, scope: Scope, metrics: Metrics) -> Guard:
    """Make the dependency that lets a request pass if its key allows ``scope``.

    Use it as ``dependencies=[Depends(guard(...))]``. The name of the key is then
    ``request.state.caller``.
    """

    async def check(request: Request, bearer: _Bearer, header: _Header) -> None:
        presented = bearer.credentials if bearer is not None else header
        key = keys.find(presented) if presented is not None else None
        if key is None:
            metrics.count(m.UNAUTHORISED, 1, "401")
            raise HTTPException(
                401,
                "this API key is not known" if presented is not None else
                f"an API key is needed: `Authorization: Bearer KEY` or `{_HEADER}: KEY`",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        request.state.caller = key.name
        if not key.allows(scope):
            metrics.count(m.UNAUTHORISED, 1, "403")
            raise HTTPException(403, f"the key {key.name} does not allow this: {scope} is needed")

    return check
