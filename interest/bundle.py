"""The model bundle: everything that decides which vector a window gets, under one id."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from interest.window import WindowLimits

Pooling = Literal["mean", "first", "last"]
UserEncoderKind = Literal["decay", "text", "sequence"]


class TextModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pretrained language model by reference, and how its tokens become one vector.

    ``reference`` is a Hugging Face folder or id, or empty for the MiniLM of the ``embedded``
    extra: where to find the model, no part of what it is. ``fingerprint`` is the hash of its
    weights, configuration and tokenizer, so that two machines agree that they mean the same.
    ``preparation`` is the version of the text preparation before the tokenizer.
    """

    reference: str
    fingerprint: str
    dim: int
    pooling: Pooling = "mean"
    instruction: str = ""
    max_tokens: int = 256
    preparation: int = 1


class TypeWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an event of each type says of the user's interest; negative pushes away."""

    view: float = 0.3
    click: float = 0.4
    search: float = 0.6
    favourite: float = 0.8
    cart: float = 0.8
    purchase: float = 1.0
    review: float = 1.0
    remove: float = -0.5
    # ``return`` is a keyword of Python; a bundle's file says ``return``.
    return_: float = msgspec.field(default=-1.0, name="return")


class DecayParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the ``decay`` encoder weighs a behaviour.

    An event's weight is ``weights[type] × position_decay^i × 0.5^(age / half_life_ms)``, with
    i = 0 for the newest event and age counted back from it. A rating of ``bad_rating`` or less
    makes it negative; a view or click of less than ``bounce_ms`` counts ``bounce_factor`` of
    it. Negative weights push away, together at most ``push_limit`` as far as the positive ones
    pull, so that a vector never points away from what the user liked.
    """

    weights: TypeWeights = TypeWeights()
    position_decay: float = 0.85
    half_life_ms: int = 14 * 86_400_000
    bad_rating: float = 2.0
    bounce_ms: int = 2_000
    bounce_factor: float = 0.3
    push_limit: float = 0.5

    def __post_init__(self) -> None:
        if not (
            0 < self.position_decay <= 1
            and self.half_life_ms > 0
            and self.bounce_factor >= 0
            and 0 <= self.push_limit < 1
        ):
            raise ValueError(
                "decay parameters: 0 < position_decay <= 1, half_life_ms > 0, "
                "bounce_factor >= 0, 0 <= push_limit < 1"
            )


class SequenceWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weights of a ``sequence`` encoder.

    ``reference`` is the file, empty for random weights: where to find them, no part of what they
    are. ``fingerprint`` is the hash of their numbers and of the ids of the items they know. ``dim``
    is the length of item and user vectors.
    """

    reference: str
    fingerprint: str
    dim: int


class BundleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a bundle; its id is the hash of this.

    ``sequence`` is there where ``user_encoder`` is ``sequence``; items and users then lie in its
    space, else in that of the text model.
    """

    user_encoder: UserEncoderKind
    text_model: TextModel
    window: WindowLimits = WindowLimits()
    decay: DecayParameters = DecayParameters()
    sequence: SequenceWeights | None = None
    format: int = 1

    def __post_init__(self) -> None:
        if (self.sequence is not None) != (self.user_encoder == "sequence"):
            raise ValueError("a bundle has sequence weights exactly where its encoder is sequence")


class ModelBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle by its id. One id names one space: vectors of two ids are never compared."""

    config: BundleConfig

    @property
    def model_id(self) -> str:
        """Sixteen hex digits: the hash of the content, whatever folder it lies in."""
        sequence = self.config.sequence
        portable = msgspec.structs.replace(
            self.config,
            text_model=msgspec.structs.replace(self.config.text_model, reference=""),
            sequence=sequence and msgspec.structs.replace(sequence, reference=""),
        )
        raw = msgspec.json.encode(portable, order="deterministic")
        return hashlib.blake2b(raw, digest_size=8).hexdigest()

    @property
    def dim(self) -> int:
        """Length of item and user vectors."""
        sequence = self.config.sequence
        return self.config.text_model.dim if sequence is None else sequence.dim


class LiveModel(msgspec.Struct, frozen=True, kw_only=True):
    """What the one pointer in Redis names: readers follow it and nothing else."""

    model_id: str
    collection: str
    dim: int
