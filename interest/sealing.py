"""Encryption at rest, as far as it needs no cryptography: its keys, and doing without.

A sealed record names its key, so that keys can be rotated: the first of the setting writes, all of
them read. What is sealed is bound to its place (see :func:`place`), so a record that was moved or
exchanged does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Final

from interest.errors import BadInput, CorruptRecord, WrongKey

#: A sealed record begins so: 0xC1 begins no MessagePack and stands in no UTF-8 text, then a format.
SEALED_MAGIC: Final = b"\xc1\x01"
_KEY_ID: Final = struct.Struct("<I4s")
#: Magic, key id (u32), and the start of a hash of the key, which tells two keys of one id apart.
SEALED_HEAD_BYTES: Final = len(SEALED_MAGIC) + _KEY_ID.size
_KEY_BYTES: Final = 32
_MAX_KEY_ID: Final = 2**32 - 1
_FORM: Final = (
    "INTEREST_ENCRYPTION_KEYS must be `id:key`, separated by commas, the one that writes first: "
    "a number from 1 and 32 bytes in base64, as `openssl rand -base64 32` prints them"
)


class Unsealed:
    """The port ``Sealer`` without keys: nothing is encrypted, and nothing encrypted opens."""

    @property
    def seals(self) -> bool:
        """False: records are stored as they are."""
        return False

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Give the bytes back."""
        return plain

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Refuse.

        Raises:
            WrongKey: it is encrypted.
            CorruptRecord: it is not, or cut short.
        """
        raise wrong_key(sealed)


IN_THE_CLEAR: Final = Unsealed()


def is_sealed(raw: bytes) -> bool:
    """Tell a sealed record from a MessagePack or text one."""
    return raw.startswith(SEALED_MAGIC)


def sealed_head(key_id: int, key: bytes) -> bytes:
    """Give what a record begins with that a key sealed."""
    digest = hashlib.blake2b(key, digest_size=4, person=b"interest.seal").digest()
    return SEALED_MAGIC + _KEY_ID.pack(key_id, digest)


def wrong_key(sealed: bytes) -> BadInput:
    """Say that a record needs a key that is not there."""
    if not is_sealed(sealed) or len(sealed) < SEALED_HEAD_BYTES:
        return CorruptRecord(f"a record of {len(sealed)} bytes should be encrypted, but is not")
    key_id, _ = _KEY_ID.unpack_from(sealed, len(SEALED_MAGIC))
    return WrongKey(
        f"a record is encrypted with key {key_id}, which INTEREST_ENCRYPTION_KEYS does not hold, "
        "or holds another key under that id"
    )


def place(*parts: str | bytes) -> bytes:
    """Give the context that binds a record to its place: every part with its length before it."""
    raw = [part if isinstance(part, bytes) else part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "little") + part for part in raw)


def parse_keys(text: str) -> tuple[tuple[int, bytes], ...]:
    """Read the setting ``encryption_keys``: (id, 32 bytes) each, the one that writes first.

    Raises:
        BadInput: one line that shows no key.
    """
    keys: dict[int, bytes] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            raise BadInput(_FORM) from None  # the cause would show the key
        if not name.isascii() or not name.isdigit() or len(key) != _KEY_BYTES:
            raise BadInput(_FORM)
        key_id = int(name)
        if not 1 <= key_id <= _MAX_KEY_ID:
            raise BadInput(_FORM)
        if key_id in keys:
            raise BadInput(f"INTEREST_ENCRYPTION_KEYS holds the id {key_id} twice")
        keys[key_id] = key
    return tuple(keys.items())
