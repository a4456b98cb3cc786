"""Re-driving: letters that are valid by now go back to work, and leave the desk.

Events go to ``routed``, to the partition of their subject, requests to forget to their topic;
items go to ``catalogue``, unless a newer message of the item has come since. In this order, a
batch at a time, each step acknowledged before the next:

1. A copy of the letter is written under a key of this run, and the letter is removed.
2. The message is sent.
3. The copy is removed.

A crash leaves the letter, its copy or both, and the next run sends again, which changes nothing:
an event counts once. Removing the letter itself only after the message was sent would be wrong:
the worker may have refused it again by then, and written that under the same key.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from interest.clock import Clock, system_clock
from interest.errors import InvalidEvent
from interest.event import encode_event
from interest.forgetting import decode_forget_request
from interest.metrics import NoMetrics
from interest.partition import partition_of
from interest.ports import Sealer
from interest.pseudonyms import Pseudonyms
from interest.settings import Settings
from streams.dead_letter_desk import IN_HAND, LetterRef, Lying, Selection, letters, tombstone
from streams.dead_letters import UNSEALED, redriven_headers
from streams.letter_sealing import letters_sealed
from streams.letters import DeadLetter, Failure, letter_record
from streams.outbox import Outbox, Record
from streams.scan import open_scan
from streams.topics import TopicNames, ensure_topics
from streams.validation import valid_event, valid_item

_BATCH: Final = 256


class RedriveReport(msgspec.Struct):
    """What a re-drive did: messages sent, by topic, and letters that stay, by reason.

    ``superseded`` counts letters of items that are removed because a newer message of the same
    item has come since.
    """

    sent: Counter[str] = msgspec.field(default_factory=Counter)
    superseded: int = 0
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    keys: set[str] = msgspec.field(default_factory=set)


async def redrive(
    settings: Settings,
    chosen: Selection,
    sealer: Sealer = UNSEALED,
    clock: Clock = system_clock,
) -> RedriveReport:
    """Send the chosen letters that are valid now; the others get their new error.

    Raises:
        ServiceUnavailable: no broker answers.
        TopicMismatch: the topics do not fit together, as while they grow.
    """
    topics = await ensure_topics(settings)
    seal = letters_sealed(TopicNames.of(settings).dead_letters, sealer)
    outbox = Outbox(settings, NoMetrics(), seal)
    await outbox.start()
    run = _Run(settings, sealer, outbox, topics.partitions, clock)
    try:
        batch: list[Lying] = []
        async for lying in letters(settings, chosen, sealer):
            batch.append(lying)
            if len(batch) == _BATCH:
                await run.handle(batch)
                batch = []
        await run.handle(batch)
    finally:
        await outbox.stop()
    return run.report


class _Run:
    def __init__(
        self, settings: Settings, sealer: Sealer, outbox: Outbox, n_partitions: int, clock: Clock
    ) -> None:
        self._settings = settings
        self._sealer = sealer
        self._pseudonym = Pseudonyms(settings.pseudonym_key)
        self._names = TopicNames.of(settings)
        self._outbox = outbox
        self._n_partitions = n_partitions
        self._clock = clock
        self._mark = IN_HAND + secrets.token_hex(4)
        self._catalogue: dict[str, _Place] | None = None
        self.report = RedriveReport()

    async def handle(self, batch: Sequence[Lying]) -> None:
        """Judge a batch again and do what follows; when it returns, it is acknowledged."""
        sending: list[tuple[Lying, Record]] = []
        refused: list[tuple[Lying, InvalidEvent]] = []
        superseded: list[Lying] = []
        for lying in batch:
            self.report.keys.add(lying.name)
            try:
                record = await self._judge(lying)
            except InvalidEvent as error:
                refused.append((lying, error))
                self.report.refused[error.reason] += 1
            else:
                if record is None:
                    superseded.append(lying)
                else:
                    sending.append((lying, record))
        self.report.superseded += len(superseded)
        await self._keep(refused)
        await self._remove([lying.ref for lying in superseded])
        await self._send(sending)

    async def _judge(self, lying: Lying) -> Record | None:
        """Give what is to be sent; None for what is out of date.

        Raises:
            InvalidEvent: the message still breaks the contract.
        """
        letter = lying.letter
        if letter.is_cut:
            kept = len(letter.value or b"")
            raise InvalidEvent("too_large", f"only {kept} of {letter.n_bytes} bytes were kept")
        letter = msgspec.structs.replace(letter, key=lying.name)
        if letter.origin.topic == self._names.catalogue:
            return await self._item(letter)
        if letter.origin.topic == self._names.forget:
            return self._forget_request(letter)
        return self._event(letter)

    def _event(self, letter: DeadLetter) -> Record:
        event = valid_event(letter.value, letter.original_key, self._clock())
        subject_id = self._pseudonym(event.user_id)
        value = letter.value
        if subject_id != event.user_id:
            # Neither the value as it came nor a producer's headers may go on: the id is in them.
            value = encode_event(msgspec.structs.replace(event, user_id=subject_id))
            letter = msgspec.structs.replace(letter, original_headers=())
        return Record(
            topic=self._names.routed,
            key=subject_id.encode(),
            value=value,
            partition=partition_of(subject_id, self._n_partitions),
            headers=redriven_headers(letter, self._sealer),
        )

    def _forget_request(self, letter: DeadLetter) -> Record:
        user_id = decode_forget_request(letter.value).user_id
        subject_id = self._pseudonym(user_id)
        return Record(
            topic=self._names.forget,
            key=user_id.encode(),
            value=letter.value,
            partition=partition_of(subject_id, self._n_partitions),
            headers=redriven_headers(letter),
        )

    async def _item(self, letter: DeadLetter) -> Record | None:
        item_id, _ = valid_item(letter.value, letter.original_key)
        newest = (await self._newest_items()).get(item_id)
        if newest is not None and newest.is_behind(letter):
            return None
        headers = redriven_headers(letter)
        return Record(self._names.catalogue, item_id.encode(), letter.value, headers=headers)

    async def _keep(self, refused: Sequence[tuple[Lying, InvalidEvent]]) -> None:
        now_ms = self._clock()
        await self._outbox.send_all(
            [self._copy(lying, lying.name, Failure.of(error, now_ms)) for lying, error in refused]
        )
        await self._remove([lying.ref for lying, _ in refused if lying.ref.key != lying.name])

    async def _send(self, sending: Sequence[tuple[Lying, Record]]) -> None:
        # What an interrupted run had in hand stays under the key of that run: nobody else writes
        # there.
        fresh = [lying for lying, _ in sending if lying.ref.key == lying.name]
        await self._outbox.send_all(
            [self._copy(lying, lying.name + self._mark, lying.letter.last) for lying in fresh]
        )
        await self._remove([lying.ref for lying in fresh])
        await self._outbox.send_all([record for _, record in sending])
        await self._remove(
            [
                lying.ref
                if lying.ref.key != lying.name
                else LetterRef(lying.name + self._mark, lying.ref.partition)
                for lying, _ in sending
            ]
        )
        for _, record in sending:
            self.report.sent[record.topic] += 1

    def _copy(self, lying: Lying, key: str, last: Failure) -> Record:
        letter = msgspec.structs.replace(lying.letter, key=key, last=last)
        return letter_record(self._names.dead_letters, letter, lying.ref.partition)

    async def _remove(self, refs: Sequence[LetterRef]) -> None:
        await self._outbox.send_all([tombstone(self._names.dead_letters, ref) for ref in refs])

    async def _newest_items(self) -> dict[str, _Place]:
        """Say where the newest valid message of each item lies; read once, when first asked."""
        if self._catalogue is None:
            self._catalogue = await _newest_items(self._settings, self._names.catalogue)
        return self._catalogue


class _Place(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where a message lies; ordered by its time stamp (Unix ms)."""

    timestamp_ms: int
    partition: int
    offset: int

    def is_behind(self, letter: DeadLetter) -> bool:
        """Tell whether this came after a letter's message."""
        origin = letter.origin
        if self.partition == origin.partition:
            return self.offset > origin.offset
        return self.timestamp_ms > origin.timestamp_ms


async def _newest_items(settings: Settings, topic: str) -> dict[str, _Place]:
    newest: dict[str, _Place] = {}
    async with open_scan(settings) as scan:
        for partition in await scan.partitions(topic):
            bounds = await scan.bounds(topic, partition)
            async for records in scan.records(topic, partition, bounds):
                for record in records:
                    item_id = _item_id(record)
                    place = _Place(int(record.timestamp), partition, record.offset)
                    if item_id is not None and (item_id not in newest or newest[item_id] < place):
                        newest[item_id] = place
    return newest


def _item_id(record: Any) -> str | None:
    try:
        return valid_item(record.value, record.key)[0]
    except InvalidEvent:
        return None  # it is a letter of its own
