"""The keys of encryption at rest, and what is said without the right one."""

from __future__ import annotations

import base64

import pytest

from interest.errors import BadInput, CorruptRecord, WrongKey
from interest.sealing import IN_THE_CLEAR, is_sealed, parse_keys, place, sealed_head

ONE, TWO = bytes(range(32)), bytes(range(32, 64))


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_the_first_key_comes_first() -> None:
    assert parse_keys(f"2:{text(TWO)}, 1:{text(ONE)},") == ((2, TWO), (1, ONE))
    assert parse_keys("") == ()


@pytest.mark.parametrize(
    "setting",
    [
        text(ONE), f"0:{text(ONE)}", f"-1:{text(ONE)}", f"x:{text(ONE)}", f"²:{text(ONE)}",
        f"4294967296:{text(ONE)}", f"1:{text(ONE)[:-4]}", f"1:{text(ONE)}x", "1:",
        f"1:{text(ONE)}:2", "1:ümlaut",
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_without_showing_a_key(setting: str) -> None:
    with pytest.raises(BadInput, match="INTEREST_ENCRYPTION_KEYS") as caught:
        parse_keys(setting)
    assert text(ONE)[:8] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_one_id_cannot_name_two_keys() -> None:
    with pytest.raises(BadInput, match="id 1 twice"):
        parse_keys(f"1:{text(ONE)},1:{text(TWO)}")


def test_without_keys_records_stay_as_they_are_and_sealed_ones_name_their_key() -> None:
    assert not IN_THE_CLEAR.seals
    assert IN_THE_CLEAR.seal(b"plain", b"") == b"plain"
    with pytest.raises(WrongKey, match="key 7"):
        IN_THE_CLEAR.open(sealed_head(7, ONE) + b"rest", b"")
    with pytest.raises(CorruptRecord):
        IN_THE_CLEAR.open(sealed_head(7, ONE)[:-1], b"")


def test_two_keys_of_one_id_are_told_apart() -> None:
    assert sealed_head(1, ONE) != sealed_head(1, TWO)
    assert is_sealed(sealed_head(1, ONE))


def test_places_do_not_run_into_each_other() -> None:
    places = [place("a", "bc"), place("ab", "c"), place("abc"), place("a", "b", "c"), place()]
    assert len(set(places)) == len(places)
    assert place("a", "b") == place(b"a", b"b")
