"""The recent behaviours that readers see beside a vector: MessagePack, see ``docs/contracts.md``.

They are written with every vector, 50 of them, and read by few; so they are made straight from the
window, without an object per behaviour in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from interest.errors import CorruptRecord
from interest.event import EventType
from interest.window import BehaviourWindow

_TEXT_CHARS: Final = 128


class RecentBehaviour(msgspec.Struct, frozen=True, array_like=True):
    """One behaviour of a window as readers see it beside the vector, newest first."""

    type: EventType
    ts: int
    item_id: str | None = None
    text: str | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[RecentBehaviour, ...])


def recent_of(window: BehaviourWindow) -> bytes:
    """Give what readers see of a window, newest first."""
    return _encoder.encode(
        [
            (
                event.type,
                int(event.ts),
                event.item_id,
                event.text[:_TEXT_CHARS] if event.text else None,
            )
            for event in reversed(window.events)
        ]
    )


def recent_to_bytes(behaviours: Iterable[RecentBehaviour]) -> bytes:
    """Give the MessagePack array of behaviours."""
    return _encoder.encode(tuple(behaviours))


def recent_from_bytes(raw: bytes) -> tuple[RecentBehaviour, ...]:
    """Read them back.

    Raises:
        CorruptRecord: somebody else wrote them.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"recent behaviours of {len(raw)} bytes: {error}") from error
