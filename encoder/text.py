"""Text preparation for English and Chinese.

:func:`normalise` is what a language model reads; the model's own tokenizer does the rest.
:func:`terms` is the bag of words for sparse search: only there are stop words removed.
Both are pure: the same text gives the same result, whatever was seen before. (Characters that a
Python's Unicode tables do not know yet count as unprintable and are dropped.)
"""

from __future__ import annotations

import functools
import html
import math
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Literal

from encoder.stop_words import STOP_WORDS

#: Raise it when :func:`normalise` changes: it is part of a bundle's identity.
PREPARATION: Final = 1
#: Longer than any text the contracts allow, so nothing valid is cut here.
MAX_CHARS: Final = 131_072

Language = Literal["en", "zh", "other"]

# NFKC would glue them to the word: "Lego™" must not become "LegoTM".
_MARKS: Final = str.maketrans(dict.fromkeys("™℠®©", " "))
# Nothing but a name, or a name and attributes: "a <b and c> d" is no tag.
_TAG: Final = re.compile(r"</?[A-Za-z][A-Za-z0-9]*(?:\s+[\w-]+=[^<>]*)?\s*/?>")
# Shop feeds escape twice and more; a bound, since each pass may reveal another entity.
_MAX_UNESCAPES: Final = 3

_HAN: Final = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_HAN_CHAR: Final = re.compile(f"[{_HAN}]")
_KANA: Final = re.compile("[\u3040-\u30ff]")
_LATIN_WORD: Final = re.compile("[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]+")
_RUN: Final = re.compile(rf"(?P<han>[{_HAN}]+)|(?P<word>(?:(?![{_HAN}_])\w)+(?:['’]\w+)?)")


def normalise(text: str) -> str:
    """Give a text as one printable line: NFKC, no entities, tags or control characters.

    White space of any kind becomes one space. Case stays, since some models read it. Whatever
    lies beyond :data:`MAX_CHARS` is cut. Text that says nothing gives "".
    """
    text = text[:MAX_CHARS]
    for _ in range(_MAX_UNESCAPES):
        if "&" not in text or (unescaped := html.unescape(text)) == text:
            break
        text = unescaped
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = unicodedata.normalize("NFKC", text.translate(_MARKS))
    if not text.isprintable():
        # Tokenizers refuse lone surrogates, and see zero-width characters as word borders.
        text = "".join(c for c in text if c.isprintable() or c.isspace())
    return " ".join(text.split())


def language(text: str) -> Language:
    """Tell the language by script: ``zh`` for Han, ``en`` for Latin, else ``other``.

    A Latin word weighs as much as a Han character, so a brand name leaves a Chinese title
    Chinese. Kana make a text Japanese. Languages that share a script are not told apart.
    """
    latin = _LATIN_WORD.findall(text)
    n_han, n_latin, n_kana = (len(_HAN_CHAR.findall(text)), len(latin), len(_KANA.findall(text)))
    n_foreign = sum(c.isalpha() for c in text) - n_han - sum(map(len, latin))
    if n_foreign > n_han + n_latin or 3 * n_kana > n_han > 0 or not n_han + n_latin:
        return "other"
    return "zh" if n_han >= n_latin else "en"


def terms(text: str) -> dict[str, float]:
    """Give the bag of words of a text: term → weight, of unit length; {} for no word.

    The weight is log(1 + tf) before scaling (tf: how often the term stands in the text); how
    rare a term is in the catalogue is for the index to add. Words are case-folded; Chinese is
    cut by jieba in search mode, so a long word also counts by the words within it. Stop words
    are removed, except from a text that holds no other.
    """
    words = list(_words(normalise(text).casefold()))
    counts = Counter([word for word in words if word not in STOP_WORDS] or words)
    weights = {term: math.log1p(n) for term, n in counts.items()}
    length = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
    return {term: weight / length for term, weight in weights.items()}


def _words(text: str) -> Iterator[str]:
    for run in _RUN.finditer(text):
        if run["han"]:
            yield from _chinese().cut_for_search(run["han"])
        else:
            yield run["word"].replace("’", "'").removesuffix("'s").replace("'", "")


@functools.cache
def _chinese() -> Any:
    """Load jieba, about 1 s: for the first Chinese text only."""
    with warnings.catch_warnings():
        # Its sources hold invalid escapes, and it asks for pkg_resources: both warn.
        warnings.simplefilter("ignore")
        import jieba

    class Quiet(jieba.Tokenizer):  # type: ignore[misc]
        """Builds the dictionary without log lines and without a cache file in /tmp."""

        initialized: bool

        def initialize(self, dictionary: Any = None) -> None:
            with self.lock:
                if not self.initialized:
                    self.FREQ, self.total = self.gen_pfdict(self.get_dict_file())
                    self.initialized = True

    return Quiet()
