"""Weights of a sequence encoder: random by a seed, or a safetensors file of a bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import safetensors
import safetensors.torch
import torch

from encoder.sequence_model import SequenceModel, SequenceShape
from interest.bundle import SequenceWeights
from interest.errors import BadInput

_FORMAT: Final = "1"
#: Key of the JSON in the file's metadata: format, shape and the ids of the embedded items.
_KEY: Final = "interest-sequence"

#: No file, no header of ours, or weights of other names or sizes.
_UNREADABLE: Final = (
    OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError,
)  # fmt: skip


class LoadedSequence(NamedTuple):
    """A model, the ids of the items that have an embedding by row, and what a bundle says of it."""

    model: SequenceModel
    item_ids: tuple[str, ...]
    described: SequenceWeights


def random_sequence(seed: int, *, text_dim: int, dim: int) -> LoadedSequence:
    """Make a model with random weights: for measuring speed.

    Raises:
        BadInput: there is no model of this size.
    """
    try:
        model = SequenceModel(SequenceShape(text_dim=text_dim, dim=dim), seed)
    except ValueError as error:
        raise BadInput(f"{error}; set INTEREST_SEQUENCE_DIM") from error
    return loaded_sequence(model, ())


def load_sequence(path: Path, *, text_dim: int) -> LoadedSequence:
    """Read a model from a file that :func:`save_sequence` wrote.

    Raises:
        BadInput: no such file, another format, damaged, or trained on another text model's
            vectors; the text says what to do.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
        if header["format"] != _FORMAT:
            raise BadInput(
                f"{path} has format {header['format']} of sequence models, not {_FORMAT}"
            )
        model = SequenceModel(SequenceShape(**header["shape"]))
        model.load_state_dict(safetensors.torch.load_file(path))
        item_ids = tuple(header["item_ids"])
    except _UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), "")
        raise BadInput(
            f"{path} cannot be read as a sequence model ({type(error).__name__}: {reason}); "
            "copy the bundle again"
        ) from error
    if model.shape.text_dim != text_dim:
        raise BadInput(
            f"{path} was trained on text of {model.shape.text_dim} numbers, and the bundle's text "
            f"has {text_dim}: its files are of different bundles, copy it again"
        )
    if len(item_ids) != model.shape.n_items:
        raise BadInput(f"{path} names {len(item_ids)} items for {model.shape.n_items} embeddings")
    if not all(torch.isfinite(weight).all() for weight in model.parameters()):
        raise BadInput(f"{path} holds NaN or infinity")
    return loaded_sequence(model, item_ids)


def save_sequence(path: Path, model: SequenceModel, item_ids: Sequence[str] = ()) -> None:
    """Write a model; ``item_ids[i]`` is the item of embedding i."""
    header = {
        "format": _FORMAT,
        "shape": dataclasses.asdict(model.shape),
        "item_ids": list(item_ids),
    }
    state = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={_KEY: json.dumps(header)})


def loaded_sequence(model: SequenceModel, item_ids: tuple[str, ...]) -> LoadedSequence:
    """Describe a model that is trained and changes no more; ``item_ids[i]`` is embedding i."""
    model.requires_grad_(False).eval()
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([dataclasses.asdict(model.shape), item_ids]).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.contiguous().numpy().tobytes())
    described = SequenceWeights(fingerprint=digest.hexdigest(), dim=model.shape.dim)
    return LoadedSequence(model, item_ids, described)
