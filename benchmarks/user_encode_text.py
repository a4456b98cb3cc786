"""Whole windows through the sequence encoder, and as texts through MiniLM."""

from __future__ import annotations

import gzip
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.results import Measurement
from benchmarks.window_lengths import beauty
from encoder.items import TextItemEncoder
from encoder.loading import load_text_encoder
from encoder.sequence import SequenceItemEncoder, SequenceUserEncoder
from encoder.sequence_weights import random_sequence
from encoder.window_text import TextUserEncoder
from interest.bundle import DecayParameters
from interest.encoded_items import EncodedItems
from interest.event import Event, EventType
from interest.fold import window_of
from interest.item import Item
from interest.ports import UserEncoder
from interest.window import BehaviourWindow
from interest_cli.convert import SAMPLE_FOLDER
from interest_cli.files import RecordFile, read_items

_NAME: Final = "user-encode"
_DIM: Final = 64
_WINDOWS: Final = 2_000
#: The text method takes as long for one window as ours for hundreds.
_TEXT_WINDOWS: Final = 16
_HOUR_MS: Final = 3_600_000


def against_text(data: Path, device: torch.device, runs: int) -> tuple[list[Measurement], float]:
    """Measure both from windows to vectors; also give how many times faster ours is."""
    text_encoder = load_text_encoder(max_tokens=256, device=str(device))
    titles = _titles(data)
    items = [Item(item_id=str(i), title=title) for i, title in enumerate(titles)]
    sequence = random_sequence(0, text_dim=text_encoder.dim, dim=_DIM)
    encoder = SequenceItemEncoder(TextItemEncoder(text_encoder), sequence)
    # Where the vectors point makes no difference to the speed.
    vectors = np.random.default_rng(0).normal(size=(len(items), _DIM)).astype(np.float32)
    known = EncodedItems(items, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    windows = _windows(data, len(items))
    parameters = DecayParameters()
    users = SequenceUserEncoder(encoder, sequence.model, device, parameters.bad_rating)
    texts = TextUserEncoder(text_encoder, parameters)
    pairs = [
        (
            _seconds(users, windows, known) / len(windows),
            _seconds(texts, windows[:_TEXT_WINDOWS], known) / _TEXT_WINDOWS,
        )
        for _ in range(runs + 1)
    ][1:]  # the first warms both
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    where = f"{beauty(data).name} windows with titles"
    rows = [
        _row(where, f"ours, d = {_DIM}, from the window", [1 / ours for ours, _ in pairs]),
        _row(where, "text window, 256 tokens", [1 / theirs for _, theirs in pairs], 1 / ratio),
    ]
    return rows, ratio


def _titles(data: Path) -> list[str]:
    path = data / "amazon_beauty" / "items.tsv.gz"
    if not path.is_file():
        file = RecordFile(SAMPLE_FOLDER / "items.jsonl.gz", Item, print)
        return [item.title for item in read_items(file, on_invalid=print)]
    with gzip.open(path, "rt", encoding="utf-8") as file_:
        next(file_)
        titles = [line.rstrip("\n").split("\t")[1] for line in file_]
    return [title for title in titles if title.strip()]


def _windows(data: Path, n_items: int) -> list[BehaviourWindow]:
    rng = np.random.default_rng(0)
    return [
        window_of(
            str(user),
            [
                Event(
                    event_id=f"{user}-{i}",
                    user_id=str(user),
                    type=EventType.PURCHASE,
                    ts=1_700_000_000_000 + i * _HOUR_MS,
                    item_id=str(item),
                )
                for i, item in enumerate(rng.integers(n_items, size=length).tolist())
            ],
        )
        for user, length in enumerate(rng.choice(beauty(data).lengths, _WINDOWS).tolist())
    ]


def _seconds(
    encoder: UserEncoder, windows: Sequence[BehaviourWindow], known: EncodedItems
) -> float:
    began = time.perf_counter()
    encoder.encode(windows, known)
    return time.perf_counter() - began


def _row(where: str, name: str, runs: Sequence[float], ratio: float | None = None) -> Measurement:
    return Measurement(
        benchmark=_NAME, subject=where, name=name, unit="windows/s", runs=tuple(runs),
        value=statistics.median(runs), ratio=ratio, ratio_to="ours" if ratio else "",
    )  # fmt: skip
