"""From settings to a model bundle with both encoders: what the wiring calls."""

from __future__ import annotations

import msgspec
import torch

from encoder.decay import DecayUserEncoder
from encoder.items import TextItemEncoder
from encoder.loading import choose_device, load_text_encoder
from encoder.sequence import SequenceItemEncoder, SequenceUserEncoder
from encoder.sequence_weights import LoadedSequence, load_sequence, random_sequence
from encoder.text_encoder import TextEncoder
from encoder.threads import usable_cores
from encoder.window_text import TextUserEncoder
from interest.bundle import BundleConfig, ModelBundle
from interest.event import Event, EventType
from interest.fold import window_of
from interest.item import EncodedItem, Item
from interest.ports import ItemEncoder, UserEncoder
from interest.settings import Settings
from interest.window import BehaviourWindow, WindowLimits

_DAY_MS = 86_400_000


class Encoders(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A model bundle and the encoders that give its space."""

    bundle: ModelBundle
    items: ItemEncoder
    users: UserEncoder

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
    """Load the text model that the settings name and put both encoders on it.

    Sets torch's number of threads for the whole process.

    Raises:
        EncoderUnavailable: the model cannot be loaded or run; the text says what to do.
        BadInput: the settings contradict each other.
    """
    text_encoder = load_text_model(settings)
    sequence = _sequence(settings, text_encoder.dim)
    config = BundleConfig(
        user_encoder=settings.user_encoder,
        text_model=text_encoder.described,
        window=WindowLimits(
            max_events=settings.window_max_events,
            span_ms=max(1, round(settings.window_days * _DAY_MS)),
        ),
        sequence=sequence and sequence.described,
    )
    items: ItemEncoder = TextItemEncoder(text_encoder)
    users: UserEncoder
    if sequence is not None:
        items = SequenceItemEncoder(items, sequence)
        users = SequenceUserEncoder(
            items, sequence.model, choose_device(settings.device), config.decay.bad_rating
        )
    elif config.user_encoder == "decay":
        users = DecayUserEncoder(items, config.decay)
    else:
        users = TextUserEncoder(text_encoder, config.decay)
    return Encoders(bundle=ModelBundle(config=config), items=items, users=users)


def _sequence(settings: Settings, text_dim: int) -> LoadedSequence | None:
    if settings.user_encoder != "sequence":
        return None
    if settings.sequence_model:
        return load_sequence(settings.sequence_model, text_dim=text_dim)
    return random_sequence(settings.sequence_seed, text_dim=text_dim, dim=settings.sequence_dim)
