from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder import text as prepared
from encoder.text import MAX_CHARS, language, normalise, terms


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  red\t\n mug\u3000\u00a0 ", "red mug"),
        ("ＡＢＣ　１２３", "ABC 123"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom &amp;amp; Jerry&#39;s", "Tom & Jerry's"),
        ("Lego™ Star® Wars", "Lego Star Wars"),
        ("<b>red</b><br/>mug <a href='x'>here</a>", "red mug here"),
        ("size <5 and a <b and c> d", "size <5 and a <b and c> d"),
        ("zero\u200bwidth \u202eoverride soft\u00adhyphen", "zerowidth override softhyphen"),
        ("nul\x00 bell\x07", "nul bell"),
        ("half \ud800 pair", "half pair"),
        ("红色，马克杯", "红色,马克杯"),
        ("\u200b \x00", ""),
        ("", ""),
    ],
)
def test_a_text_becomes_one_clean_line(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_whatever_comes_in_one_printable_line_comes_out(raw: str) -> None:
    line = normalise(raw)
    assert line.isprintable()
    assert line == " ".join(line.split())
    assert normalise(raw) == line
    line.encode()  # no lone surrogate is left


def test_a_text_of_megabytes_is_cut_before_anything_else() -> None:
    assert len(normalise("a" * 5_000_000)) == MAX_CHARS


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("white hanging heart", "en"),
        ("红色马克杯", "zh"),
        ("Apple iPhone 15 手机", "zh"),
        ("a pendant with the sign 中 on it", "en"),
        ("日本の包丁セット", "other"),
        ("красная кружка", "other"),
        ("빨간 머그", "other"),
        ("12 × 34", "other"),
        ("", "other"),
    ],
)
def test_the_language_is_told_by_the_script(raw: str, expected: str) -> None:
    assert language(raw) == expected


def test_terms_are_counted_without_stop_words_and_case() -> None:
    bag = terms("The red mug and the RED lamp")
    assert set(bag) == {"red", "mug", "lamp"}
    assert bag["red"] / bag["mug"] == pytest.approx(math.log(3) / math.log(2))


def test_a_text_of_stop_words_alone_keeps_them() -> None:
    assert set(terms("The Who")) == {"the", "who"}


def test_possessives_and_apostrophes_do_not_split_words() -> None:
    assert set(terms("women's don’t t-shirt usb_c")) == {"women", "dont", "t", "shirt", "usb", "c"}


def test_chinese_is_cut_into_words_and_the_words_within() -> None:
    bag = terms("我的红色智能手机 iPhone15")
    assert {"红色", "智能", "手机", "智能手机", "iphone15"} <= set(bag)
    assert not {"我", "的"} & set(bag)


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet=st.sampled_from("红色手机壳的 aemug's,.1"), min_size=0, max_size=40))
def test_a_bag_of_words_has_unit_length_or_is_empty(raw: str) -> None:
    bag = terms(raw)
    assert all(weight > 0 for weight in bag.values())
    assert not bag or math.fsum(w * w for w in bag.values()) == pytest.approx(1)


def test_chinese_leaves_no_log_line_and_no_cache_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prepared._chinese.cache_clear()
    assert terms("红色")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
