"""Growing the number of partitions, offline, so that every window is found where its user is.

A subject's partition is the hash of its id modulo their number, so with another number most
windows lie on the wrong one. In this order, and each step acknowledged before the next:

1. No worker is in the group, and ``routed`` and ``forget`` are read to their end: what is left
   in them would be on the wrong partition for ever. Unread ``behaviours`` may stay, since a
   worker routes what it finds on another partition than its user's.
2. The changelog grows. From here on the counts disagree, and no worker starts.
3. Each window whose home has changed is written there, with the bytes and headers it has, and
   then removed where it was, by a tombstone with its token.
4. ``routed`` and ``forget`` grow, and ``behaviours`` last: then the counts agree again.

Where ``behaviours`` was grown by other means, no worker can read anything first; the rest is as
above. Interrupted anywhere, the same command completes it: a window that lies twice is the same
window, and what was moved is not moved again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import GroupCoordinatorNotAvailableError, IncompatibleBrokerVersion, KafkaError

from interest.errors import BadInput, ServiceUnavailable, TopicMismatch
from interest.ports import Sealer
from interest.sealing import IN_THE_CLEAR
from interest.settings import Settings
from streams.kafka_security import kafka_options
from streams.move_windows import Moved, move_windows
from streams.topics import TopicNames, admin_client, ensure_topics, partition_counts

_SETTLE_S: Final = 30.0
#: How often a drain may end with events routed in its last moment before we give up.
_DRAINS: Final = 5

#: Runs a worker until everything published so far is read, and stops it.
Drain = Callable[[], Awaitable[None]]
Say = Callable[[str], None]


async def grow(
    settings: Settings, n: int, drain: Drain, say: Say, sealer: Sealer = IN_THE_CLEAR
) -> Moved:
    """Grow to ``n`` partitions; see above.

    Args:
        sealer: opens encrypted windows.

    Raises:
        BadInput: fewer partitions than there are, or as many.
        TopicMismatch: workers are running, or events go on being routed.
        ServiceUnavailable: no broker answers, or it cannot add partitions.
    """
    try:
        return await _grow(settings, n, drain, say, sealer)
    except (KafkaError, TimeoutError) as error:
        raise ServiceUnavailable(
            f"Kafka at {settings.kafka_bootstrap} failed in the middle ({error!r}); run this again"
        ) from error


async def _grow(settings: Settings, n: int, drain: Drain, say: Say, sealer: Sealer) -> Moved:
    names = TopicNames.of(settings)
    async with admin_client(settings) as admin:
        counts = await partition_counts(admin)
        if names.behaviours not in counts:
            raise BadInput(
                f"there is no topic {names.behaviours}; `interest topics create` makes it"
            )
        if counts.get(names.windows, 0) < counts[names.behaviours] and names.windows in counts:
            say(
                f"{names.behaviours} was grown by other means: what workers had not read yet of "
                f"{names.routed} may become dead letters (wrong_partition); re-drive them"
            )
        elif not _begun(names, counts):
            await ensure_topics(settings)
            counts = await partition_counts(admin)
        _check_target(names, counts, n)
        await _check_support(admin, names, counts, n)
        await _check_nobody(admin, settings.group_id)
        if not _begun(names, counts):
            await _drain(settings, names, drain, say)
            await _check_nobody(admin, settings.group_id)
        await _add(admin, [names.windows], n, say)
        # Whoever joined before that must be gone: none can join any more.
        await _check_nobody(admin, settings.group_id)
        moved = await move_windows(settings, n, sealer)
        say(f"{moved.n_windows} windows moved")
        await _add(admin, [names.routed, names.forget], n, say)
        await _add(admin, [names.behaviours], n, say)
    return moved


def _begun(names: TopicNames, counts: Mapping[str, int]) -> bool:
    """Tell whether growing was begun, here or by other means; then no worker can run."""
    return names.windows in counts and counts[names.windows] != counts[names.behaviours]


def _check_target(names: TopicNames, counts: Mapping[str, int], n: int) -> None:
    most = max(counts[name] for name in names.copartitioned)
    least = min(counts[name] for name in names.copartitioned)
    if n < most:
        hint = f"growing to {most} was begun; complete that" if least < most else ""
        raise BadInput(
            f"there are {most} partitions, {n} would be fewer: {hint or 'Kafka only adds them'}"
        )
    if n == least:
        raise BadInput(f"there are {n} partitions already")


async def _check_support(
    admin: AIOKafkaAdminClient, names: TopicNames, counts: Mapping[str, int], n: int
) -> None:
    growing = [name for name in names.copartitioned if counts[name] < n]
    await _create(admin, growing, n, validate_only=True)


async def _create(
    admin: AIOKafkaAdminClient, topics: Sequence[str], n: int, *, validate_only: bool = False
) -> None:
    try:
        await admin.create_partitions(
            {topic: NewPartitions(n) for topic in topics}, validate_only=validate_only
        )
    except IncompatibleBrokerVersion as error:
        raise ServiceUnavailable(
            "this broker cannot add partitions (the embedded one cannot); start over with "
            "INTEREST_PARTITIONS and a new INTEREST_TOPIC_PREFIX, or use Apache Kafka"
        ) from error
    except KafkaError as error:
        raise ServiceUnavailable(f"the broker refused to add partitions: {error}") from error


async def _check_nobody(admin: AIOKafkaAdminClient, group_id: str) -> None:
    """Return if no worker is in the group.

    Raises:
        TopicMismatch: some are.
    """
    try:
        [response] = await admin.describe_consumer_groups([group_id])
    except GroupCoordinatorNotAvailableError:
        return  # no group was ever on this broker
    except KafkaError as error:
        raise ServiceUnavailable(f"the broker tells nothing of the group: {error}") from error
    for code, group, state, _, _, members, *_ in response.groups:
        if members:
            raise TopicMismatch(
                f"group {group} has {len(members)} members ({state}): stop every worker, and run "
                "this again; after a crash they count until INTEREST_SESSION_TIMEOUT_S is over"
            )
        if code:
            raise ServiceUnavailable(f"the broker tells nothing of group {group}: error {code}")


async def _drain(settings: Settings, names: TopicNames, drain: Drain, say: Say) -> None:
    for _ in range(_DRAINS):
        say("a worker reads everything that is published")
        await drain()
        left = await _unread(settings, (names.routed, names.forget))
        if not left:
            return
        say(f"{sum(left.values())} records were added to {', '.join(left)} meanwhile")
    raise TopicMismatch(
        f"{', '.join(left)} cannot be read to the end: stop the producers that do not partition "
        "by murmur2, and run this again"
    )


async def _unread(settings: Settings, topics: Iterable[str]) -> Counter[str]:
    """Count what the group has yet to read of each topic."""
    left: Counter[str] = Counter()
    # A member of the group by name only: it joins by subscribing, and does not.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=settings.group_id,
        enable_auto_commit=False,
        **kafka_options(settings),
    )
    await consumer.start()
    try:
        await consumer.topics()
        tps = [
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.partitions_for_topic(topic) or ()
        ]
        consumer.assign(tps)
        starts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for tp in tps:
            read = await consumer.committed(tp)
            behind = ends[tp] - max(starts[tp], read or 0)
            if behind > 0:
                left[tp.topic] += behind
    finally:
        await consumer.stop()
    return left


async def _add(admin: AIOKafkaAdminClient, topics: Sequence[str], n: int, say: Say) -> None:
    """Add partitions where there are fewer, and wait until the brokers tell of them."""
    counts = await partition_counts(admin)
    growing = [topic for topic in topics if counts[topic] < n]
    if growing:
        await _create(admin, growing, n)
        async with asyncio.timeout(_SETTLE_S):
            while counts := await partition_counts(admin):
                if all(counts[topic] >= n for topic in growing):
                    break
                await asyncio.sleep(0.05)
        say(f"{', '.join(growing)}: {n} partitions")
