"""Texts of items for the benchmarks: real titles where the data is, else made ones."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Final

from interest.item import Item
from interest_cli.convert import SAMPLE_FOLDER
from interest_cli.files import RecordFile, read_items

_BEAUTY: Final = (
    Path(__file__).parent.parent.parent / "shared" / "data" / "amazon_beauty" / "items.tsv.gz"
)
_DESCRIPTION_WORDS: Final = (30, 110)


def titles(n: int) -> tuple[str, list[str]]:
    """Give ``n`` different titles and where they are from; the same at each call.

    Amazon Beauty beside the checkout (19 tokens on average), else the sample of Online Retail
    (10 tokens), two of which make a title where one each is not enough.
    """
    draw = random.Random(0)
    if _BEAUTY.exists():
        rows = gzip.decompress(_BEAUTY.read_bytes()).decode().splitlines()[1:]
        return "Beauty", draw.sample(sorted({row.split("\t")[1] for row in rows} - {""}), n)
    sample = RecordFile(SAMPLE_FOLDER / "items.jsonl.gz", Item, lambda line: None)
    found = sorted({item.title for item in read_items(sample, on_invalid=lambda bad: None)})
    while len(found) < n:
        found.append(f"{draw.choice(found)} {draw.choice(found)}")
    return "Online Retail", draw.sample(found, n)


def described(n: int) -> list[str]:
    """Give ``n`` titles with a description of 30 to 110 words, drawn from other titles."""
    _, found = titles(n)
    draw = random.Random(1)
    words = " ".join(found).split()
    return [f"{title}\n{' '.join(draw.choices(words, k=draw.randint(*_DESCRIPTION_WORDS)))}"
            for title in found]  # fmt: skip
