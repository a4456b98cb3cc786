"""The records of the windows' changelog: windows, tombstones of idle users, forget markers.

The changelog is not fenced, so every record says which token wrote it: a tombstone or a window
that a woken zombie wrote last must not win over what its successor wrote before it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interest.errors import CorruptRecord
from interest.forgetting import Marker
from interest.ports import Sealer
from interest.sealing import IN_THE_CLEAR, is_sealed, place
from interest.vector import Token
from interest.window import BehaviourWindow, window_from_bytes, window_to_bytes
from streams.outbox import Record

_TOKEN: Final = struct.Struct("<IIQ")
_TOKEN_HEADER: Final = "token"
#: Arrival of the events whose own time lies after it: event id → Unix ms, MessagePack.
_AHEAD_HEADER: Final = "ahead"
#: The window as it was last encoded, where what came since has pushed events out of it: if that
#: is poison, they must come back, also after a crash.
_SOUND_HEADER: Final = "sound"
#: No UTF-8 text begins with this byte, so a marker's key is never a subject's.
MARKER_KEY: Final = b"\xff"
_NOBODY_AHEAD: Final[Mapping[str, int]] = {}

_ahead_decoder = msgspec.msgpack.Decoder(dict[str, int])
_marker_decoder = msgspec.msgpack.Decoder(Marker)


class Held(msgspec.Struct):
    """A window in memory, and the generation of the worker that last changed it.

    ``touched_ms`` is when that was, by the wall clock. ``ahead`` keeps the arrival (Unix ms) of
    events whose own time lies after it: whether they came before a request to forget cannot be
    told from the window. ``sound`` is the window as it was last encoded, where that is known.
    """

    window: BehaviourWindow
    generation: int
    touched_ms: int = 0
    ahead: Mapping[str, int] = _NOBODY_AHEAD
    sound: BehaviourWindow | None = None

    @property
    def token(self) -> Token:
        """What orders writes of this window."""
        return Token(self.window.era, self.generation, self.window.revision)


class Tombstone(msgspec.Struct, frozen=True):
    """Says that a subject left the changelog, or a marker, given that no higher token is there."""

    key: bytes
    token: Token


class WindowRecords:
    """Writes and reads the records of one installation's changelog.

    Args:
        sealer: encrypts windows, and opens what was encrypted; what is in the clear is read as
            well, so that encryption can be turned on. Markers and tombstones hold no person.
    """

    def __init__(self, topic: str, sealer: Sealer = IN_THE_CLEAR) -> None:
        self._topic = topic
        self._sealer = sealer

    def window(self, partition: int, held: Held) -> Record:
        """Make the record of a window."""
        key = held.window.subject_id.encode()
        value = self._seal("window", key, window_to_bytes(held.window, held.generation))
        headers: list[tuple[str, bytes]] = []
        if held.ahead:
            ahead = self._seal(_AHEAD_HEADER, key, msgspec.msgpack.encode(held.ahead))
            headers.append((_AHEAD_HEADER, ahead))
        if held.sound is not None and _has_pushed_out(held.window, held.sound):
            sound = window_to_bytes(held.sound, held.generation)
            headers.append((_SOUND_HEADER, self._seal(_SOUND_HEADER, key, sound)))
        return Record(self._topic, key, value, partition=partition, headers=tuple(headers))

    def marker(self, partition: int, marker: Marker) -> Record:
        """Make the record of a marker; its key holds no id."""
        return Record(
            topic=self._topic,
            key=marker_key(marker),
            value=msgspec.msgpack.encode(marker),
            partition=partition,
        )

    def tombstone(self, partition: int, tombstone: Tombstone) -> Record:
        """Make the record that removes a key from the changelog."""
        return Record(
            topic=self._topic,
            key=tombstone.key,
            value=None,
            partition=partition,
            headers=((_TOKEN_HEADER, _TOKEN.pack(*tombstone.token)),),
        )

    def read(self, record: Any) -> Held | Marker | Tombstone:
        """Read a record back (aiokafka's ``ConsumerRecord``).

        Raises:
            CorruptRecord: the bytes are none of ours.
        """
        key: bytes = record.key or b""
        headers = dict(record.headers)
        try:
            if record.value is None:
                return Tombstone(key, Token(*_TOKEN.unpack(headers.get(_TOKEN_HEADER) or b"")))
            if key.startswith(MARKER_KEY):
                return _marker_decoder.decode(record.value)
            ahead = headers.get(_AHEAD_HEADER)
            if ahead:
                ahead = self._open(_AHEAD_HEADER, key, ahead)
            window, generation = window_from_bytes(self._open("window", key, record.value))
            sound = headers.get(_SOUND_HEADER)
            if sound:
                sound = self._open(_SOUND_HEADER, key, sound)
            return Held(
                window,
                generation,
                touched_ms=int(record.timestamp),
                ahead=_ahead_decoder.decode(ahead) if ahead else _NOBODY_AHEAD,
                sound=window_from_bytes(sound)[0] if sound else window,
            )
        except (msgspec.DecodeError, UnicodeDecodeError, struct.error) as error:
            raise CorruptRecord(f"changelog record: {error}") from error

    def _seal(self, kind: str, key: bytes, plain: bytes) -> bytes:
        return self._sealer.seal(plain, place(kind, self._topic, key))

    def _open(self, kind: str, key: bytes, raw: bytes) -> bytes:
        return self._sealer.open(raw, place(kind, self._topic, key)) if is_sealed(raw) else raw


def _has_pushed_out(window: BehaviourWindow, sound: BehaviourWindow) -> bool:
    """Tell whether events that could be encoded have left a window whose new ones were not yet."""
    if sound.events is window.events:
        return False
    ids = {event.event_id for event in window.events}
    return any(event.event_id not in ids for event in sound.events)


def marker_key(marker: Marker) -> bytes:
    """Name a marker's record."""
    return MARKER_KEY + marker.subject_hash
