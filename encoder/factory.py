"""From settings to a model bundle with both encoders: what the wiring calls."""

from __future__ import annotations

import msgspec
import torch

from encoder.decay import DecayUserEncoder
from encoder.items import TextItemEncoder
from encoder.loading import load_text_encoder
from encoder.window_text import TextUserEncoder
from interest.bundle import BundleConfig, ModelBundle
from interest.event import Event, EventType
from interest.fold import window_of
from interest.item import EncodedItem, Item
from interest.ports import ItemEncoder, UserEncoder
from interest.settings import Settings
from interest.window import WindowLimits

_DAY_MS = 86_400_000


class Encoders(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A model bundle and the encoders that give its space."""

    bundle: ModelBundle
    items: ItemEncoder
    users: UserEncoder

    def warm(self) -> None:
        """Run a tiny batch through both encoders, so that the first user does not wait for it.

        Raises:
            EncoderUnavailable: the device failed.
        """
        item = Item(item_id="warm", title="red cotton shirt")
        vector = self.items.encode_items([item])[0]  # (D,)
        event = Event(
            event_id="warm",
            user_id="warm",
            type=EventType.VIEW,
            ts=0,
            item_id=item.item_id,
        )
        window = window_of("warm", [event])
        self.users.encode([window], {item.item_id: EncodedItem(item=item, vector=vector)})


def load_encoders(settings: Settings) -> Encoders:
    """Load the text model that the settings name and put both encoders on it.

    Sets torch's number of threads for the whole process where the settings name one.

    Raises:
        EncoderUnavailable: the model cannot be loaded or run; the text says what to do.
        BadInput: the settings contradict each other.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    text_encoder = load_text_encoder(
        settings.text_model,
        pooling=settings.text_pooling,
        instruction=settings.text_instruction,
        max_tokens=settings.text_max_tokens,
        device=settings.device,
    )
    config = BundleConfig(
        user_encoder=settings.user_encoder,
        text_model=text_encoder.described,
        window=WindowLimits(
            max_events=settings.window_max_events,
            span_ms=max(1, round(settings.window_days * _DAY_MS)),
        ),
    )
    items = TextItemEncoder(text_encoder)
    users: UserEncoder
    if config.user_encoder == "decay":
        users = DecayUserEncoder(items, config.decay)
    else:
        users = TextUserEncoder(text_encoder, config.decay)
    return Encoders(bundle=ModelBundle(config=config), items=items, users=users)
