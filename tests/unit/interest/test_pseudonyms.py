"""What stands for a user id."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interest.errors import BadInput
from interest.pseudonyms import Pseudonyms, check_pseudonyms

KEY = "a key that nobody guesses"


def test_a_pseudonym_is_the_documented_hash() -> None:
    expected = hmac.new(KEY.encode(), "用户".encode(), hashlib.sha256).hexdigest()[:32]
    assert Pseudonyms(KEY)("用户") == f"px1-{expected}"


@given(st.text(min_size=1, max_size=256))
def test_a_pseudonym_is_replaced_by_nothing_else(user_id: str) -> None:
    """What passes the door twice stays the same person."""
    pseudonym = Pseudonyms(KEY)
    once = pseudonym(user_id)
    assert pseudonym(once) == once
    assert Pseudonyms(KEY)(user_id) == once


@pytest.mark.parametrize("near", ["px1-", "px1-" + "0" * 31, "px1-" + "0" * 33, "px1-" + "G" * 32])
def test_what_only_resembles_a_pseudonym_is_replaced(near: str) -> None:
    assert Pseudonyms(KEY)(near) != near


def test_another_key_makes_other_people() -> None:
    assert Pseudonyms(KEY)("u") != Pseudonyms(KEY + "!")("u")


def test_without_a_key_ids_stay() -> None:
    pseudonym = Pseudonyms("")
    assert not pseudonym.active
    assert pseudonym("u") == "u"


def test_a_key_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(BadInput, match="INTEREST_PSEUDONYM_KEY"):
        Pseudonyms("short")


def test_pseudonyms_without_encryption_are_refused() -> None:
    """Dead letters would keep the ids."""
    with pytest.raises(BadInput, match="INTEREST_ENCRYPTION_KEYS"):
        check_pseudonyms(KEY, encrypted=False)
    check_pseudonyms(KEY, encrypted=True)
    check_pseudonyms("", encrypted=False)
