"""The records of the windows' changelog: windows, tombstones of idle users, forget markers.

The changelog is not fenced, so every record says which token wrote it: a tombstone or a window
that a woken zombie wrote last must not win over what its successor wrote before it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from interest.errors import CorruptRecord
from interest.event import Event, id_hash
from interest.fold import joined, only
from interest.forgetting import Marker
from interest.item_table import SHARED, ItemTable
from interest.ports import Sealer
from interest.sealing import IN_THE_CLEAR, is_sealed, place
from interest.vector import Token
from interest.window import ID, BehaviourWindow, WindowLimits
from interest.window_bytes import window_from_bytes, window_to_bytes
from streams.outbox import Record

_TOKEN: Final = struct.Struct("<IIQ")
_TOKEN_HEADER: Final = "token"
#: Arrival of the events whose own time lies after it: hash of the id → Unix ms, MessagePack.
_AHEAD_HEADER: Final = "ahead"
#: What was in the window when it was last encoded, and what came since has pushed out: if that is
#: poison, it must come back, also after a crash.
_SOUND_HEADER: Final = "sound"
#: No UTF-8 text begins with this byte, so a marker's key is never a subject's.
MARKER_KEY: Final = b"\xff"
#: Of a tombstone of nobody, whose token tells the era of its partition. No hash is so short.
ERA_KEY: Final = MARKER_KEY + b"era"
_NOBODY_AHEAD: Final[Mapping[bytes, int]] = {}
#: A join of parts of one window loses nothing, whatever the bundle's limits are.
_NO_LIMITS: Final = WindowLimits(max_events=1000, span_ms=2**62)

_ahead_decoder = msgspec.msgpack.Decoder(dict[bytes, int])
_marker_decoder = msgspec.msgpack.Decoder(Marker)


class Held(msgspec.Struct, gc=False):
    """A window in memory, and the generation of the worker that last changed it.

    ``touched_ms`` is when that was, by the wall clock. ``ahead`` keeps the arrival (Unix ms) of
    events whose own time lies after it, by the hash of the id: whether they came before a request
    to forget cannot be told from the window. ``sound`` is the window as it was last encoded, where
    that is known. ``fresh`` are the events that were folded since, also those that poison has
    pushed out again, or did not let in: none is committed, so ``max_uncommitted`` bounds them. Of
    those that a recovered window had it is the ids, until they are read again.
    """

    window: BehaviourWindow
    generation: int
    touched_ms: int = 0
    ahead: Mapping[bytes, int] = _NOBODY_AHEAD
    sound: BehaviourWindow | None = None
    fresh: tuple[Event | str, ...] = ()

    @property
    def token(self) -> Token:
        """What orders writes of this window."""
        return Token(self.window.era, self.generation, self.window.revision)

    @property
    def new_events(self) -> list[Event]:
        """The events of ``fresh`` of which there is more than the id."""
        return [event for event in self.fresh if isinstance(event, Event)]

    def note(self, ahead: Mapping[bytes, int] | None, fresh: Sequence[Event]) -> None:
        """Take note of new events: some may not be in the window, and may have to come back."""
        self.fresh = (*self.fresh, *fresh)
        self.trim(ahead)

    def trim(self, ahead: Mapping[bytes, int] | None = None) -> None:
        """Note when events arrived, and let go what is noted of those that are gone for good."""
        if ahead or self.ahead:
            ids = self.window.id_hashes() | {id_hash(event_id_of(event)) for event in self.fresh}
            here = {**self.ahead, **(ahead or {})}
            self.ahead = {hashed: ms for hashed, ms in here.items() if hashed in ids}


def event_id_of(event: Event | str) -> str:
    """Give the id of an event of :attr:`Held.fresh`."""
    return event if isinstance(event, str) else event.event_id


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

    def __init__(
        self, topic: str, sealer: Sealer = IN_THE_CLEAR, items: ItemTable = SHARED
    ) -> None:
        self._topic = topic
        self._sealer = sealer
        #: What numbers the items of windows that are read.
        self.items = items
        self._touched_ms = 0

    def window(self, partition: int, held: Held) -> Record:
        """Make the record of a window."""
        key = held.window.subject_id.encode()
        value = window_to_bytes(held.window, held.generation, _unproven(held))
        value = self._seal("window", key, value)
        headers: list[tuple[str, bytes]] = []
        if held.ahead:
            ahead = self._seal(_AHEAD_HEADER, key, msgspec.msgpack.encode(held.ahead))
            headers.append((_AHEAD_HEADER, ahead))
        out = _pushed_out(held.window, held.sound)
        if out is not None:
            sound = window_to_bytes(out, held.generation)
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
            raw = self._open("window", key, record.value)
            window, generation, unproven = window_from_bytes(raw, self.items)
            sound = headers.get(_SOUND_HEADER)
            if sound:
                sound = self._open(_SOUND_HEADER, key, sound)
            return Held(
                window,
                generation,
                touched_ms=self._touched(record.timestamp),
                ahead=_ahead_decoder.decode(ahead) if ahead else _NOBODY_AHEAD,
                sound=_sound(
                    window, unproven, window_from_bytes(sound, self.items).window if sound else None
                ),
                fresh=tuple(event_id for event_id in unproven if isinstance(event_id, str)),
            )
        except (msgspec.DecodeError, UnicodeDecodeError, struct.error) as error:
            raise CorruptRecord(f"changelog record: {error}") from error

    def _touched(self, timestamp_ms: int) -> int:
        """Give the time of a record to the second; a million windows share a few numbers."""
        if not self._touched_ms <= timestamp_ms < self._touched_ms + 1000:
            self._touched_ms = timestamp_ms
        return self._touched_ms

    def _seal(self, kind: str, key: bytes, plain: bytes) -> bytes:
        return self._sealer.seal(plain, place(kind, self._topic, key))

    def _open(self, kind: str, key: bytes, raw: bytes) -> bytes:
        return self._sealer.open(raw, place(kind, self._topic, key)) if is_sealed(raw) else raw


def _unproven(held: Held) -> list[str | bytes]:
    """Give the events that no encode has shown to be sound, by id where it is known."""
    window, sound = held.window, held.sound
    if sound is not None and sound.data == window.data:
        return []
    shown = set() if sound is None else set(sound.moved(window.items).rows())
    ids = {id_hash(event_id): event_id for event_id in map(event_id_of, held.fresh)}
    return [ids.get(row.id_hash, row.id_hash) for row in window.rows() if row not in shown]


def _pushed_out(window: BehaviourWindow, sound: BehaviourWindow | None) -> BehaviourWindow | None:
    """Give what could be encoded, and left a window whose new events were not yet."""
    if sound is None or sound.data == window.data or not sound.data:
        return None
    sound = sound.moved(window.items)
    at = sound.data.find(window.data[:ID], 0, ID * len(sound)) if window.data else -1
    if at >= 0 and at % ID == 0 and window.begins_with(sound, at // ID):
        # The usual case: it left at the old end, and the rest stands as it was.
        return sound.first(at // ID) if at else None
    here = set(window.rows())
    gone = [row for row in sound.rows() if row not in here]
    return sound.with_rows(gone) if gone else None


def _sound(
    window: BehaviourWindow, unproven: Sequence[str | bytes], out: BehaviourWindow | None
) -> BehaviourWindow:
    """Give back the window as it was last encoded."""
    if not unproven and out is None:
        return window
    hashes = {event if isinstance(event, bytes) else id_hash(event) for event in unproven}
    sound = only(window, lambda ts, hashed: hashed not in hashes)
    return sound if out is None else joined(sound, out, _NO_LIMITS)


def marker_key(marker: Marker) -> bytes:
    """Name a marker's record."""
    return MARKER_KEY + marker.subject_hash
