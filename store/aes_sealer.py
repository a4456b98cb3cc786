"""Encryption at rest with AES-256-GCM, in the construction XAES-256-GCM (C2SP).

A random nonce of 96 bits may be drawn 2^32 times under one key, which a busy installation does in
weeks. XAES-256-GCM derives the AES key of each record from the first half of a nonce of 192 bits
(a CMAC-based KDF of NIST SP 800-108), so a key need not be changed for the number of its records.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from interest.errors import BadInput, CorruptRecord
from interest.ports import Sealer
from interest.sealing import SEALED_HEAD_BYTES, Unsealed, parse_keys, sealed_head, wrong_key

_NONCE_BYTES: Final = 24
_TAG_BYTES: Final = 16
#: What a sealed record is longer than its content.
OVERHEAD_BYTES: Final = SEALED_HEAD_BYTES + _NONCE_BYTES + _TAG_BYTES


def sealer_of(encryption_keys: str) -> Sealer:
    """Make the sealer of the setting; without keys nothing is encrypted.

    Raises:
        BadInput: the setting is wrong; one line that shows no key.
    """
    keys = parse_keys(encryption_keys)
    return AesSealer(keys) if keys else Unsealed()


class AesSealer:
    """The port ``Sealer``. A record is head (10 bytes), nonce (24), ciphertext, tag (16).

    Args:
        keys: (id, 32 bytes) each; the first writes, all read.

    Raises:
        BadInput: there is none.
    """

    def __init__(self, keys: Sequence[tuple[int, bytes]]) -> None:
        if not keys:
            raise BadInput("encryption needs a key")
        self._keys = {sealed_head(key_id, key): Xaes256Gcm(key) for key_id, key in keys}
        self._head, self._writes = next(iter(self._keys.items()))

    @property
    def seals(self) -> bool:
        """True: what is stored is encrypted."""
        return True

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt a record for its place."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._head + nonce + self._writes.encrypt(nonce, plain, self._head + context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt a record that was sealed for the same place.

        Raises:
            WrongKey: it needs another key.
            CorruptRecord: it was changed, or belongs to another place.
        """
        head = sealed[:SEALED_HEAD_BYTES]
        key = self._keys.get(head)
        if key is None:
            raise wrong_key(sealed)
        if len(sealed) < OVERHEAD_BYTES:
            raise CorruptRecord(f"an encrypted record of {len(sealed)} bytes is cut short")
        nonce, rest = sealed[len(head) :][:_NONCE_BYTES], sealed[len(head) + _NONCE_BYTES :]
        try:
            return key.decrypt(nonce, rest, head + context)
        except InvalidTag:
            raise CorruptRecord("an encrypted record was changed, or moved here") from None


class Xaes256Gcm:
    """The cipher: https://c2sp.org/XAES-256-GCM, with its names."""

    def __init__(self, key: bytes) -> None:
        # One block at a time, as the KDF needs; this mode has no state between calls.
        self._block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update
        k1 = int.from_bytes(self._block(bytes(16)), "big") << 1
        if k1 >> 128:
            k1 ^= (1 << 128) | 0b10000111
        mask = k1.to_bytes(16, "big")
        # M1 and M2 differ in their first four bytes only, and these in every record alike.
        self._heads = tuple(_xor(head, mask[:4]) for head in (b"\x00\x01X\x00", b"\x00\x02X\x00"))
        self._mask = mask[4:]

    def encrypt(self, nonce: bytes, plain: bytes, data: bytes) -> bytes:
        """Give ciphertext and tag; a nonce has 24 bytes."""
        return self._derived(nonce).encrypt(nonce[12:], plain, data)

    def decrypt(self, nonce: bytes, sealed: bytes, data: bytes) -> bytes:
        """Give the content.

        Raises:
            InvalidTag: it was sealed otherwise.
        """
        return self._derived(nonce).decrypt(nonce[12:], sealed, data)

    def _derived(self, nonce: bytes) -> AESGCM:
        mixed = _xor(nonce[:12], self._mask)
        first, second = self._heads
        return AESGCM(self._block(first + mixed + second + mixed))


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")
