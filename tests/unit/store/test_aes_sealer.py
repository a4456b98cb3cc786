"""Encryption at rest: the cipher, its keys, and that a record cannot leave its place."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interest.errors import BadInput, CorruptRecord, WrongKey
from store.aes_sealer import OVERHEAD_BYTES, AesSealer, Xaes256Gcm, sealer_of

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
SEALER = AesSealer([(1, ONE)])


@pytest.mark.parametrize(
    ("key", "data", "expected"),
    [
        (b"\x01", b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03", b"c2sp.org/XAES-256-GCM",
         "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)  # fmt: skip
def test_the_cipher_gives_what_its_specification_gives(
    key: bytes, data: bytes, expected: str
) -> None:
    """The first key derives without the reduction of the doubling, the second with it."""
    cipher, nonce = Xaes256Gcm(key * 32), b"ABCDEFGHIJKLMNOPQRSTUVWX"
    sealed = cipher.encrypt(nonce, b"XAES-256-GCM", data)
    assert sealed.hex() == expected
    assert cipher.decrypt(nonce, sealed, data) == b"XAES-256-GCM"


@given(plain=st.binary(max_size=2_000), context=st.binary(max_size=100))
def test_what_was_sealed_opens_in_its_place(plain: bytes, context: bytes) -> None:
    sealed = SEALER.seal(plain, context)
    assert len(sealed) == len(plain) + OVERHEAD_BYTES
    assert SEALER.open(sealed, context) == plain
    assert SEALER.seal(plain, context) != sealed, "each time another nonce"


@given(at=st.integers(0, OVERHEAD_BYTES + 4), bit=st.integers(0, 7))
def test_no_bit_can_be_changed(at: int, bit: int) -> None:
    sealed = bytearray(SEALER.seal(b"plain", b"here"))
    sealed[at] ^= 1 << bit
    with pytest.raises((CorruptRecord, WrongKey)):
        SEALER.open(bytes(sealed), b"here")


def test_a_record_does_not_open_in_another_place_or_cut_short() -> None:
    sealed = SEALER.seal(b"plain", b"here")
    with pytest.raises(CorruptRecord, match="moved"):
        SEALER.open(sealed, b"there")
    for n in range(len(sealed)):
        with pytest.raises((CorruptRecord, WrongKey)):
            SEALER.open(sealed[:n], b"here")


def test_keys_are_rotated_by_putting_a_new_one_in_front() -> None:
    old = SEALER.seal(b"old", b"")
    both = AesSealer([(2, TWO), (1, ONE)])
    assert both.open(old, b"") == b"old"
    new = both.seal(b"new", b"")
    assert AesSealer([(2, TWO)]).open(new, b"") == b"new"
    with pytest.raises(WrongKey, match="key 2"):
        SEALER.open(new, b"")


def test_another_key_under_the_same_id_is_told_from_a_damaged_record() -> None:
    """Damaged records are passed over; with a wrong key that would lose every window."""
    with pytest.raises(WrongKey, match="key 1"):
        AesSealer([(1, TWO)]).open(SEALER.seal(b"plain", b""), b"")


def test_the_setting_decides() -> None:
    assert not sealer_of("").seals
    assert (
        sealer_of("1:" + base64.b64encode(ONE).decode()).open(SEALER.seal(b"a", b""), b"") == b"a"
    )
    with pytest.raises(BadInput, match="key"):
        AesSealer([])
