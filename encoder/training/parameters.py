"""What can be chosen about training; the defaults are meant to be left alone."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from interest.errors import BadInput
from interest.window import WindowLimits

_DAY_MS: Final = 86_400_000

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]


class TrainingParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hyper-parameters of the sequence encoder, of its text and of its training.

    Windows: ``window_events`` and ``window_days`` are the limits of the bundle; by default the
    count alone bounds a window.
    Text: ``n_dense`` principal axes of the text vectors and ``n_terms`` of title terms are what
    the model reads; the first ``text_dim`` axes stand beside its vector (0: they do not), so a
    served vector has ``dim + text_dim`` numbers.
    Model: ``dropout`` is the share of the numbers within it, ``id_dropout`` that of the items which
    a step reads by their text alone, as it reads items that training never saw.
    Training: a step takes about ``batch_events`` events. The learning rate rises over the first
    ``warm_up`` of the steps to ``learning_rate`` and falls to zero by half a cosine (Loshchilov
    and Hutter 2017). Training ends after ``epochs``, or ``patience`` epochs without a better
    validation NDCG@10. The softmax is over all items up to ``full_softmax_items`` of them, else
    over ``sampled_items`` a step. ``hold_out_items`` is the share of the items, drawn by their
    ids and the seed, whose events are not read: ``interest evaluate`` then tells how well items
    that training never met are found.
    """

    window_events: Annotated[int, Meta(ge=1, le=1000)] = 50
    window_days: Annotated[float, Meta(gt=0, le=36_500)] = 36_500.0
    n_dense: Count = 192
    n_terms: Annotated[int, Meta(ge=0)] = 96
    text_dim: Annotated[int, Meta(ge=0)] = 128
    dim: Count = 64
    n_layers: Count = 2
    head_dim: Count = 32
    n_taps: Annotated[int, Meta(ge=0)] = 3
    dropout: Share = 0.2
    id_dropout: Share = 0.1
    epochs: Count = 14
    patience: Count = 4
    batch_events: Count = 2048
    learning_rate: Annotated[float, Meta(gt=0)] = 2e-3
    warm_up: Share = 0.05
    weight_decay: Annotated[float, Meta(ge=0)] = 0.05
    clip_norm: Annotated[float, Meta(gt=0)] = 1.0
    full_softmax_items: Count = 50_000
    sampled_items: Count = 8192
    validation_users: Count = 20_000
    hold_out_items: Share = 0.0

    @property
    def window(self) -> WindowLimits:
        """The window limits of the bundle."""
        return WindowLimits(
            max_events=self.window_events, span_ms=max(1, round(self.window_days * _DAY_MS))
        )


def read_parameters(path: Path) -> TrainingParameters:
    """Read parameters from a file, TOML or (``.json``) JSON; what it does not name is default.

    Raises:
        BadInput: it cannot be read, or a value is not allowed; says which.
    """
    try:
        raw = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return msgspec.json.decode(raw, type=TrainingParameters)
        return msgspec.convert(tomllib.loads(raw), TrainingParameters)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: {error}; docs/models.md lists the parameters") from error
