"""The model bundle: everything that decides which vector a window gets, under one id."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

from interest.window import WindowLimits

Pooling = Literal["mean", "first", "last"]
UserEncoderKind = Literal["decay", "text", "sequence"]
#: How items are found and ranked: see ``store.paths``.
RetrievalPath = Literal["dense", "hybrid", "rerank"]
#: Raise it when a bundle of today would be read wrongly.
BUNDLE_FORMAT: Final = 1
#: Fields that came after the first bundles: one without them keeps its id.
_LATER_FIELDS: Final = ("sparse", "paths")


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


class FeatureWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is made of text vectors and titles before anything else: see ``encoder.text_features``.

    ``fingerprint`` is the hash of the fitted numbers and terms, ``dim`` the length of the result.
    """

    fingerprint: str
    dim: int


class TextPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Half-whitened text beside what the sequence model learned, in items and users.

    ``dim`` numbers, weighing ``share`` of the cosine; users' part is that of ``decay``.
    """

    dim: int
    share: float

    def __post_init__(self) -> None:
        if self.dim < 1 or not 0 < self.share < 1:
            raise ValueError("text part of a vector: dim >= 1, 0 < share < 1")


class SequenceWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weights of a ``sequence`` encoder.

    ``fingerprint`` is the hash of their numbers and of the ids of the items they know. ``dim``
    is the length of the vectors that the model makes.
    """

    fingerprint: str
    dim: int
    text: TextPart | None = None


class SparsePart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Title terms and links between items, beside the dense vector: see ``encoder.sparse_space``.

    ``fingerprint`` is the hash of the fitted numbers, terms and ids. A user's terms and links fade
    per position by decays of their own; all else of an event's weight is that of ``decay``.
    """

    fingerprint: str
    n_terms: int
    n_linked: int
    terms_decay: float
    links_decay: float

    def __post_init__(self) -> None:
        if not (0 < self.terms_decay <= 1 and 0 < self.links_decay <= 1):
            raise ValueError("sparse part of a bundle: 0 < decay per position <= 1")


class PathWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts beside the cosine of the dense vectors, which weighs 1.

    ``terms`` and ``links`` multiply the two parts of the sparse dot product, ``last`` the cosine
    of an item with the newest one of the user.
    """

    terms: float = 0.0
    links: float = 0.0
    last: float = 0.0


class RetrievalPaths(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weights of each retrieval path, for all users: see ``store.paths``.

    ``hybrid`` has no ``last``: an index does not know it. ``best`` is the path that ranked
    validation users best.
    """

    hybrid: PathWeights
    rerank: PathWeights
    best: RetrievalPath = "hybrid"

    def __post_init__(self) -> None:
        if self.hybrid.last:
            raise ValueError("the path hybrid has no weight of the last item")


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle was trained on and how well it did; for people, and for training again.

    ``data`` is the hash of the events and items, in whatever order they came. ``parameters`` are
    those of ``interest train``, ``metrics`` are of the validation users.
    """

    data: str
    n_users: int
    n_items: int
    n_events: int
    seed: int
    parameters: dict[str, int | float | str | bool]
    metrics: dict[str, float]


class BundleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a bundle; its id is the hash of this.

    ``sequence`` is there where ``user_encoder`` is ``sequence``; items and users then lie in its
    space, else in that of ``features``, else in that of the text model. ``sparse`` are vectors
    beside those, and ``paths`` how both are weighed. ``licences`` are notes on what the weights
    were made of.
    """

    user_encoder: UserEncoderKind
    text_model: TextModel
    window: WindowLimits = WindowLimits()
    decay: DecayParameters = DecayParameters()
    features: FeatureWeights | None = None
    sequence: SequenceWeights | None = None
    sparse: SparsePart | None = None
    paths: RetrievalPaths | None = None
    training: TrainingRecord | None = None
    licences: tuple[str, ...] = ()
    format: int = BUNDLE_FORMAT

    def __post_init__(self) -> None:
        if (self.sequence is not None) != (self.user_encoder == "sequence"):
            raise ValueError("a bundle has sequence weights exactly where its encoder is sequence")
        if self.features is not None and self.user_encoder == "text":
            raise ValueError("the encoder text reads texts, not features of them")
        if (self.sparse is None) != (self.paths is None):
            raise ValueError("a bundle has weights of paths exactly where it has sparse parts")
        if self.format != BUNDLE_FORMAT:
            raise ValueError(f"bundle format {self.format}, expected {BUNDLE_FORMAT}")


class ModelBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle by its id. One id names one space: vectors of two ids are never compared."""

    config: BundleConfig

    @property
    def model_id(self) -> str:
        """Sixteen hex digits: the hash of the content, whatever folder it lies in."""
        portable = msgspec.structs.replace(
            self.config, text_model=msgspec.structs.replace(self.config.text_model, reference="")
        )
        described = msgspec.to_builtins(portable, order="deterministic")
        for name in _LATER_FIELDS:
            if described[name] is None:
                del described[name]
        return hashlib.blake2b(msgspec.json.encode(described), digest_size=8).hexdigest()

    @property
    def dim(self) -> int:
        """Length of item and user vectors."""
        config = self.config
        if config.sequence is not None:
            text = config.sequence.text
            return config.sequence.dim + (text.dim if text else 0)
        return config.features.dim if config.features else config.text_model.dim


class LiveModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the one pointer in Redis names: readers follow it and nothing else.

    So what readers need of a bundle is here, too, and they need not have the bundle itself.
    """

    model_id: str
    collection: str
    dim: int
    #: Weights of the paths beside ``dense``; None where the model has no sparse vectors.
    paths: RetrievalPaths | None = None
