"""The model bundle: everything that decides which vector a window gets, under one id."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from interest.window import WindowLimits

Pooling = Literal["mean", "first", "last"]
UserEncoderKind = Literal["decay", "text"]


class TextModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pretrained language model by reference, and how its tokens become one vector.

    ``reference`` is a Hugging Face folder or id; ``fingerprint`` the hash of its weights,
    configuration and tokenizer, so that two machines agree that they mean the same model.
    """

    reference: str
    fingerprint: str
    dim: int
    pooling: Pooling = "mean"
    instruction: str = ""
    max_tokens: int = 256


class DecayParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the ``decay`` encoder weighs a behaviour.

    An event's weight is ``type_weights[type] × position_decay^i × 0.5^(age / half_life_ms)``,
    with i = 0 for the newest event and age counted back from it. Negative weights push away.
    """

    position_decay: float = 0.85
    half_life_ms: int = 14 * 86_400_000
    bad_rating: float = 2.0
    bounce_ms: int = 2_000
    bounce_factor: float = 0.3


class BundleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a bundle; its id is the hash of this."""

    user_encoder: UserEncoderKind
    text_model: TextModel
    window: WindowLimits = WindowLimits()
    decay: DecayParameters = DecayParameters()
    format: int = 1


class ModelBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle by its id. One id names one space: vectors of two ids are never compared."""

    config: BundleConfig

    @property
    def model_id(self) -> str:
        """Sixteen hex digits: the hash of the content, whatever folder it lies in."""
        portable = msgspec.structs.replace(
            self.config,
            text_model=msgspec.structs.replace(self.config.text_model, reference=""),
        )
        raw = msgspec.json.encode(portable, order="deterministic")
        return hashlib.blake2b(raw, digest_size=8).hexdigest()

    @property
    def dim(self) -> int:
        """Length of item and user vectors."""
        return self.config.text_model.dim


class LiveModel(msgspec.Struct, frozen=True, kw_only=True):
    """What the one pointer in Redis names: readers follow it and nothing else."""

    model_id: str
    collection: str
    dim: int
