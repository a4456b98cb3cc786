"""From settings to a model bundle with both encoders: what the wiring calls."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from encoder.bundle_folder import BundleParts, load_bundle_folder
from encoder.decay import DecayUserEncoder
from encoder.items import FeatureItemEncoder, TextItemEncoder
from encoder.loading import choose_device, load_text_encoder
from encoder.parts import JoinedUserEncoder, PartOfItems, Parts
from encoder.sequence import SequenceItemEncoder, SequenceUserEncoder
from encoder.sequence_weights import LoadedSequence, random_sequence
from encoder.sparse_space import SparseSpace
from encoder.text_encoder import TextEncoder
from encoder.threads import usable_cores
from encoder.window_text import TextUserEncoder
from interest.bundle import (
    BundleConfig,
    DecayParameters,
    ModelBundle,
    SequenceWeights,
    TextModel,
)
from interest.errors import BadInput
from interest.event import Event, EventType
from interest.fold import window_of
from interest.item import EncodedItem, Item
from interest.ports import ItemEncoder, SparseEncoder, UserEncoder
from interest.settings import Settings
from interest.window import BehaviourWindow, WindowLimits

_DAY_MS = 86_400_000


class Encoders(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A model bundle and the encoders that give its space."""

    bundle: ModelBundle
    items: ItemEncoder
    users: UserEncoder
    sparse: SparseEncoder | None = None

    def warm(self) -> None:
        """Run windows of several lengths through both encoders, so that no user waits for it.

        Raises:
            EncoderUnavailable: the device failed.
        """
        item = Item(item_id="warm", title="red cotton shirt")
        vector = self.items.encode_items([item])[0]  # (D,)
        n_events = self.bundle.config.window.max_events
        windows = [_warm_window(item, n) for n in sorted({1, n_events // 2 or 1, n_events})]
        self.users.encode(windows, {item.item_id: EncodedItem(item=item, vector=vector)})


def _warm_window(item: Item, n_events: int) -> BehaviourWindow:
    events = tuple(
        Event(
            event_id=f"{n:04}",
            user_id="warm",
            type=EventType.VIEW,
            ts=n,
            item_id=item.item_id,
        )
        for n in range(n_events)
    )
    return window_of("warm", events)


def load_text_model(settings: Settings) -> TextEncoder:
    """Load the text model that the settings name.

    Sets torch's number of threads for the whole process.

    Raises:
        EncoderUnavailable: the model cannot be loaded or run; the text says what to do.
        BadInput: the settings contradict each other.
    """
    set_threads(settings)
    return load_text_encoder(
        settings.text_model,
        pooling=settings.text_pooling,
        instruction=settings.text_instruction,
        max_tokens=settings.text_max_tokens,
        device=settings.device,
    )


def set_threads(settings: Settings) -> None:
    """Set torch's number of threads for the whole process."""
    torch.set_num_threads(settings.threads or usable_cores())


def load_encoders(settings: Settings) -> Encoders:
    """Load the bundle or the text model that the settings name and put both encoders on it.

    Sets torch's number of threads for the whole process.

    Raises:
        EncoderUnavailable: the model cannot be loaded or run; the text says what to do.
        BadInput: the settings contradict each other, or the bundle is damaged.
    """
    set_threads(settings)
    if settings.bundle:
        parts = load_bundle_folder(Path(settings.bundle))
        text_encoder = text_encoder_of(
            parts.bundle.config.text_model, settings.text_model, settings.device
        )
    else:
        text_encoder = load_text_model(settings)
        parts = _untrained(settings, text_encoder)
    return encoders_of(parts, text_encoder, choose_device(settings.device))


def text_encoder_of(described: TextModel, reference: str, device: str) -> TextEncoder:
    """Load the text model of a bundle, with the pooling and limits that it names.

    Args:
        reference: where it lies on this machine; empty for where the bundle says.

    Raises:
        EncoderUnavailable: it cannot be loaded or run.
        BadInput: another model lies there than the bundle was made with.
    """
    encoder = load_text_encoder(
        reference or described.reference,
        pooling=described.pooling,
        instruction=described.instruction,
        max_tokens=described.max_tokens,
        device=device,
    )
    found = msgspec.structs.replace(encoder.described, reference=described.reference)
    if found != described:
        raise BadInput(
            f"text model {encoder.described.reference or 'of the embedded extra'} "
            f"({found.fingerprint}, {found.dim} dimensions) is not the one that the bundle was "
            f"made with ({described.fingerprint}, {described.dim} dimensions); set "
            "INTEREST_TEXT_MODEL to the folder of that one"
        )
    return encoder


def encoders_of(
    parts: BundleParts,
    text_encoder: TextEncoder,
    device: torch.device,
    texts: ItemEncoder | None = None,
) -> Encoders:
    """Put both encoders of a bundle on its text model.

    Args:
        texts: gives what ``text_encoder`` gives, for whoever has the vectors already.
    """
    config = parts.bundle.config
    texts = texts or TextItemEncoder(text_encoder)
    if parts.features is not None:
        texts = FeatureItemEncoder(texts, parts.features)
    items: ItemEncoder = texts
    users: UserEncoder
    if parts.sequence is not None:
        described = config.sequence or parts.sequence.described
        items, users = sequence_encoders(described, config.decay, parts.sequence, texts, device)
    elif config.user_encoder == "decay":
        users = DecayUserEncoder(texts, config.decay)
    else:
        users = TextUserEncoder(text_encoder, config.decay)
    return Encoders(bundle=parts.bundle, items=items, users=users, sparse=sparse_space_of(parts))


def sparse_space_of(parts: BundleParts) -> SparseSpace | None:
    """Give what encodes into the sparse vectors of a bundle; None where it has none."""
    config = parts.bundle.config
    if parts.sparse is None or config.sparse is None:
        return None
    return SparseSpace(parts.sparse, config.sparse, config.decay)


def sequence_encoders(
    described: SequenceWeights,
    decay: DecayParameters,
    loaded: LoadedSequence,
    texts: ItemEncoder,
    device: torch.device,
) -> tuple[ItemEncoder, UserEncoder]:
    """Give the item and the user encoder of a sequence model, with its text part if it has one.

    Args:
        described: of them ``text`` counts.
        texts: gives what the model was trained on.
    """
    text = described.text
    if text is None:
        items = SequenceItemEncoder(texts, loaded)
        return items, SequenceUserEncoder(items, loaded.model, device, decay.bad_rating)
    parts = Parts(loaded.model.shape.dim, text.dim, text.share)
    items = SequenceItemEncoder(texts, loaded, parts)
    learned, beside = (PartOfItems(items, parts, text=is_text) for is_text in (False, True))
    users = JoinedUserEncoder(
        SequenceUserEncoder(learned, loaded.model, device, decay.bad_rating),
        DecayUserEncoder(beside, decay),
        parts,
    )
    return items, users


def limits_of(settings: Settings) -> WindowLimits:
    """Give the limits of windows where no bundle says them."""
    return WindowLimits(
        max_events=settings.window_max_events,
        span_ms=max(1, round(settings.window_days * _DAY_MS)),
    )


def _untrained(settings: Settings, text_encoder: TextEncoder) -> BundleParts:
    """Give the bundle that the settings describe, without a folder."""
    sequence = None
    if settings.user_encoder == "sequence":
        sequence = random_sequence(
            settings.sequence_seed, text_dim=text_encoder.dim, dim=settings.sequence_dim
        )
    config = BundleConfig(
        user_encoder=settings.user_encoder,
        text_model=text_encoder.described,
        window=limits_of(settings),
        sequence=sequence and sequence.described,
    )
    return BundleParts(ModelBundle(config=config), sequence=sequence)
