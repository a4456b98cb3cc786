"""What ``interest model fit`` does: a bundle of a catalogue, without events."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoder.bundle_folder import save_bundle_folder
from encoder.evaluation.dataset import read_dataset
from encoder.factory import limits_of, load_text_model
from encoder.items import TextItemEncoder
from encoder.zero_shot_bundle import zero_shot_parts
from interest.bundle import ModelBundle
from interest.errors import BadInput
from interest.item import Item
from interest.ports import ItemEncoder
from interest.settings import Settings
from interest_cli.console import warn
from interest_cli.files import InvalidRecord, RecordFile, read_items

#: Texts that whitening is fitted on: dozens for each number of a usual text vector.
N_TEXTS: Final = 20_000
_ITEMS_PER_BATCH: Final = 512


def fit_bundle(
    items_path: Path,
    output: Path,
    settings: Settings,
    *,
    n_texts: int = N_TEXTS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ModelBundle:
    """Fit the encoder that needs no training on a catalogue, and write its bundle.

    Title terms are counted over all items. Whitening says little more for many texts than for some,
    and those take time.

    Args:
        items_path: JSON lines of items, or a folder with ``items.tsv``; in any order.
        progress: told how many texts are encoded, and of how many.
        n_texts: so many texts at most are encoded for the whitening, drawn by a hash of the id.

    Raises:
        BadInput: the catalogue is missing or wrong or holds no two texts, or the output exists.
        EncoderUnavailable: text model or device cannot be used.
    """
    if output.exists():
        raise BadInput(f"{output} exists; choose another folder, or remove it")
    items = _read(items_path)
    text_encoder = load_text_model(settings)
    some = items[:n_texts]
    vectors = _vectors(some, TextItemEncoder(text_encoder), progress)
    parts = zero_shot_parts(items, vectors, text_encoder.described, limits_of(settings))
    save_bundle_folder(output, parts)
    return parts.bundle


def _read(path: Path) -> list[Item]:
    """Give the items of a catalogue, by a hash of their ids; of several with one id the last."""
    if path.is_dir():
        items = read_dataset(path).catalogue()
    else:

        def note(record: InvalidRecord) -> None:
            warn(f"{record.path}:{record.line}: {record.reason}: {record.detail}")

        items = list(read_items(RecordFile(path, Item, warn), on_invalid=note))
    latest = {item.item_id: item for item in items}
    return sorted(
        latest.values(),
        key=lambda item: hashlib.blake2b(item.item_id.encode(), digest_size=8).digest(),
    )


def _vectors(
    items: Sequence[Item], texts: ItemEncoder, progress: Callable[[int, int], None]
) -> NDArray[np.float32]:
    vectors = np.zeros((len(items), texts.dim), np.float32)
    for first in range(0, len(items), _ITEMS_PER_BATCH):
        batch = items[first : first + _ITEMS_PER_BATCH]
        vectors[first : first + len(batch)] = texts.encode_items(batch)
        progress(first + len(batch), len(items))
    return vectors
