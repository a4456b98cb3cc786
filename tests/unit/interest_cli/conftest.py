"""Encoders that are quick and easy to reckon with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from interest.bundle import BundleConfig, ModelBundle, TextModel
from interest.item import EncodedItem, Item, unit
from interest.window import BehaviourWindow, WindowLimits
from interest_cli.replay import LoadedBundle

DIM = 8


class HashItemEncoder:
    """A vector per title; remembers what it was asked."""

    dim = DIM

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        self.asked += [item.item_id for item in items]
        return self.encode_texts([item.text for item in items])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [sum(text.encode()) for text in texts]
        return unit(np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds]))


class MeanUserEncoder:
    """The mean of the window's items; a token is an event. Remembers its batches."""

    dim = DIM

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def n_tokens(self, window: BehaviourWindow) -> int:
        return len(window)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        self.batches.append([window.subject_id for window in windows])
        rows = np.zeros((len(windows), DIM), np.float32)
        for row, window in zip(rows, windows, strict=True):
            for event in window.events:
                if event.item_id is not None and event.item_id in items:
                    row += items[event.item_id].vector
        return unit(rows)


@pytest.fixture(scope="session")
def interest_bundle() -> LoadedBundle:
    config = BundleConfig(
        user_encoder="decay",
        text_model=TextModel(reference="none", fingerprint="none", dim=DIM),
        window=WindowLimits(max_events=4, span_ms=1000),
    )
    return LoadedBundle(ModelBundle(config=config), HashItemEncoder(), MeanUserEncoder())
