"""The desk of the dead letters: what lies there now, who is in it, and taking it away.

The topic is compacted, but a broker compacts late or never: of the records under one key the
newest counts, and a tombstone removes it. So a partition is read twice, first to learn where
its newest records are, then to show them. Memory holds the keys of one partition, not letters.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Any, Final

import msgspec

from interest.errors import BadInput, CorruptRecord, WrongKey
from interest.metrics import NoMetrics
from interest.ports import Sealer
from interest.settings import Settings
from streams.dead_letters import UNSEALED
from streams.letters import DeadLetter, read_letter
from streams.outbox import Outbox, Record
from streams.scan import TopicScan, open_scan
from streams.topics import TopicNames

log = logging.getLogger(__name__)

_BATCH: Final = 500
#: Behind it, the run that is re-driving a letter; see :mod:`streams.redrive`.
IN_HAND: Final = "~"


class LetterRef(msgspec.Struct, frozen=True, gc=False):
    """Where a letter lies: what it takes to remove it."""

    key: str
    partition: int


class Lying(msgspec.Struct, frozen=True):
    """A letter, and where it lies."""

    ref: LetterRef
    letter: DeadLetter

    @property
    def name(self) -> str:
        """The letter's key, also where a re-drive that was interrupted has moved it."""
        return self.ref.key.partition(IN_HAND)[0]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters; what is not given does not restrict. Times are of the last error, Unix ms."""

    keys: frozenset[str] = frozenset()
    reason: str = ""
    user_id: str = ""
    since_ms: int | None = None
    before_ms: int | None = None

    def __contains__(self, lying: object) -> bool:
        if not isinstance(lying, Lying):
            return False
        last = lying.letter.last
        return (
            (not self.keys or lying.name in self.keys or lying.ref.key in self.keys)
            and (not self.reason or self.reason == last.reason)
            and (self.since_ms is None or last.time_ms >= self.since_ms)
            and (self.before_ms is None or last.time_ms < self.before_ms)
            and (not self.user_id or carries(lying.letter, self.user_id))
        )


EVERYTHING: Final = Selection()


async def letters(
    settings: Settings, chosen: Selection = EVERYTHING, sealer: Sealer = UNSEALED
) -> AsyncGenerator[Lying, None]:
    """Yield the letters that lie there when this is called, oldest first in each partition.

    Raises:
        ServiceUnavailable: no broker answers.
        BadInput: the topic is not there.
    """
    topic = TopicNames.of(settings).dead_letters
    async with open_scan(settings) as scan:
        for partition in await scan.partitions(topic):
            bounds = await scan.bounds(topic, partition)
            newest = await _newest(scan, topic, partition, bounds)
            async for records in scan.records(topic, partition, bounds):
                for record in records:
                    if newest.get(record.key) != record.offset:
                        continue
                    try:
                        letter = read_letter(record, sealer)
                    except (CorruptRecord, WrongKey) as error:
                        log.warning("%s; it is passed over", error)
                        continue
                    lying = Lying(LetterRef(record.key.decode(), partition), letter)
                    if lying in chosen:
                        yield lying


async def _newest(
    scan: TopicScan, topic: str, partition: int, bounds: tuple[int, int]
) -> dict[bytes, int]:
    """Give the offset of the newest record of each key that is not removed."""
    newest: dict[bytes, int] = {}
    async for records in scan.records(topic, partition, bounds):
        for record in records:
            if record.value is None:
                newest.pop(record.key, None)
            elif record.key is not None:
                newest[record.key] = record.offset
    return newest


async def find(settings: Settings, key: str, sealer: Sealer = UNSEALED) -> Lying:
    """Give one letter.

    Raises:
        BadInput: there is none of this key.
    """
    async with aclosing(letters(settings, Selection(keys=frozenset({key})), sealer)) as found:
        async for lying in found:
            return lying
    raise no_letter(key)


def no_letter(key: str) -> BadInput:
    """Say that a letter is not there."""
    return BadInput(f"there is no dead letter {key}; `interest dead-letters list` shows the keys")


async def purge(settings: Settings, chosen: Selection, sealer: Sealer = UNSEALED) -> int:
    """Remove letters for good; return how many."""
    n = 0
    outbox = Outbox(settings, NoMetrics())
    await outbox.start()
    try:
        batch: list[LetterRef] = []
        async for lying in letters(settings, chosen, sealer):
            batch.append(lying.ref)
            if len(batch) == _BATCH:
                n += await remove(settings, outbox, batch)
                batch = []
        return n + await remove(settings, outbox, batch)
    finally:
        await outbox.stop()


async def letters_of(
    settings: Settings, user_ids: Collection[str], sealer: Sealer = UNSEALED
) -> list[LetterRef]:
    """Find the letters that carry one of these people, in one reading of the topic."""
    return [
        lying.ref
        async for lying in letters(settings, EVERYTHING, sealer)
        if any(carries(lying.letter, user_id) for user_id in user_ids)
    ]


async def remove(settings: Settings, outbox: Outbox, refs: Sequence[LetterRef]) -> int:
    """Remove letters; return how many when the broker has acknowledged it."""
    topic = TopicNames.of(settings).dead_letters
    await outbox.send_all([tombstone(topic, ref) for ref in refs])
    return len(refs)


def tombstone(topic: str, ref: LetterRef) -> Record:
    """Make the record that removes a letter, where it lies: its key alone need not lead there."""
    return Record(topic, ref.key.encode(), None, partition=ref.partition)


def carries(letter: DeadLetter, user_id: str) -> bool:
    """Tell whether a letter is of a person, or names them.

    The ``user_id`` of a value that is JSON must be equal; in everything else, keys and headers
    among it, the id counts as a word: touched by no letter, digit, hyphen or underscore, so
    that user ``1`` is not found in every number.
    """
    word = _word(user_id)
    if letter.original_key is not None and word.search(letter.original_key):
        return True
    if any(word.search(value) for _, value in letter.original_headers):
        return True
    value = letter.value or b""
    try:
        document = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # JSON of ASCII alone would have escaped it.
        escaped = json.dumps(user_id)[1:-1]
        return bool(word.search(value) or _word(escaped).search(value))
    return _names(document, user_id, word)


def _names(document: Any, user_id: str, word: re.Pattern[bytes]) -> bool:
    waiting = [document]  # a list, since nesting may be deeper than calls
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            given = value.pop("user_id", None)
            if isinstance(given, str | int | float):
                if str(given) == user_id:
                    return True
            else:
                waiting.append(given)
            waiting.extend((*value.keys(), *value.values()))
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and word.search(value.encode(errors="replace")):
            return True
    return False


def _word(text: str) -> re.Pattern[bytes]:
    touching = rb"[0-9A-Za-z_\-\x80-\xff]"
    return re.compile(rb"(?<!%b)%b(?!%b)" % (touching, re.escape(text.encode()), touching))
