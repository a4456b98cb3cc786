"""Pseudonyms: what stands for a user id in everything this product writes.

The pseudonym of an id is ``px1-`` and 32 hex digits of its HMAC-SHA256. Whoever holds the key can
find the pseudonym of an id they know; nobody can find the id of a pseudonym.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from interest.errors import BadInput

_PREFIX: Final = "px1-"
_HEX_DIGITS: Final = 32
_FORM: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{{_HEX_DIGITS}}}")
_MIN_KEY_CHARS: Final = 16
#: Users whose pseudonym is kept at hand: hashing takes longer than decoding an event.
_CACHED: Final = 200_000


class Pseudonyms:
    """Replaces user ids; without a key every id stays as it is.

    A text of the form of a pseudonym stays as it is, too. So what passes the door a second time
    (an event sent on to its partition, one that is re-driven, a question by somebody who reads
    the change feed) is not replaced again.

    Args:
        key: the secret; another one makes other people of all users.

    Raises:
        BadInput: the key is so short that it could be guessed.
    """

    def __init__(self, key: str) -> None:
        if key and len(key) < _MIN_KEY_CHARS:
            raise BadInput(
                f"INTEREST_PSEUDONYM_KEY needs {_MIN_KEY_CHARS} characters or more, "
                "as `openssl rand -base64 32` prints them"
            )
        self.active = bool(key)
        self._key = key.encode()
        self._replace: Callable[[str], str] = lru_cache(_CACHED)(self._pseudonym)

    def __call__(self, user_id: str) -> str:
        """Give what stands for a user id."""
        return self._replace(user_id) if self.active else user_id

    def _pseudonym(self, user_id: str) -> str:
        if _FORM.fullmatch(user_id):
            return user_id
        # What is no Unicode text is refused where it is used; here it must only not fail.
        raw = user_id.encode(errors="surrogatepass")
        return _PREFIX + hmac.digest(self._key, raw, "sha256").hex()[:_HEX_DIGITS]


def check_pseudonyms(pseudonym_key: str, *, encrypted: bool) -> None:
    """Refuse pseudonyms without encryption: dead letters would keep the ids as they came.

    Args:
        encrypted: whether dead letters are.

    Raises:
        BadInput: one line that says what to set.
    """
    if pseudonym_key and not encrypted:
        raise BadInput(
            "INTEREST_PSEUDONYM_KEY needs INTEREST_ENCRYPTION_KEYS too: dead letters keep the "
            "original bytes, with the ids in them"
        )
