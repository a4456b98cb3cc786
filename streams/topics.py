"""The topics: their names, shapes and creation.

``behaviours``, ``routed``, ``forget`` and the windows' changelog are co-partitioned: partition
*n* of each belongs to the same users, and one worker owns it. So their counts must agree; the
count of an existing ``behaviours`` topic decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from interest.errors import ServiceUnavailable, TopicMismatch
from interest.settings import Settings
from streams.kafka_security import kafka_options, no_broker

log = logging.getLogger(__name__)

_HOUR_MS: Final = 3_600_000
_SETTLE_S: Final = 20.0
_COMPACTED: Final = {"cleanup.policy": "compact"}
#: The largest record we accept to write: a dead letter is its original plus some headers.
MAX_RECORD_BYTES: Final = 2 * 1024 * 1024
#: How names end, behind the installation's prefix, where only one of them is at hand.
BEHAVIOURS: Final = "behaviours"
ROUTED: Final = "routed"
DEAD_LETTERS: Final = "dead-letters"


class TopicNames(msgspec.Struct, frozen=True):
    """Every topic by role, with the installation's prefix."""

    behaviours: str
    routed: str
    catalogue: str
    windows: str
    items_encoded: str
    user_vectors: str
    dead_letters: str
    forget: str
    control: str

    @classmethod
    def of(cls, settings: Settings) -> TopicNames:
        """Name the topics of one installation."""
        p = settings.topic_prefix
        return cls(
            behaviours=f"{p}{BEHAVIOURS}",
            routed=f"{p}{ROUTED}",
            catalogue=f"{p}catalogue",
            windows=f"{p}windows-changelog",
            items_encoded=f"{p}items-encoded",
            user_vectors=f"{p}user-vectors",
            dead_letters=f"{p}{DEAD_LETTERS}",
            forget=f"{p}forget",
            control=f"{p}control",
        )

    @property
    def copartitioned(self) -> tuple[str, ...]:
        """The topics whose partition *n* belongs to the same users; ``behaviours`` last."""
        return (self.windows, self.routed, self.forget, self.behaviours)


def topic_configs(names: TopicNames, dead_letter_days: int) -> dict[str, dict[str, str]]:
    """Give the broker settings of each topic."""
    # LogAppendTime: the broker's clock decides what lies in the future and how fresh a vector
    # is, not a producer's. The compaction lag of what workers write outlasts any pause of one,
    # so that others see what a woken zombie has overwritten.
    arrival = {"message.timestamp.type": "LogAppendTime"}
    # What a tombstone removed is gone from the disk a day later, also of a quiet topic.
    forgets = {**_COMPACTED, "max.compaction.lag.ms": str(24 * _HOUR_MS)}
    return {
        names.behaviours: arrival,
        names.routed: arrival,
        names.catalogue: {**_COMPACTED, **arrival},
        names.windows: {**forgets, "min.compaction.lag.ms": str(_HOUR_MS)},
        names.items_encoded: {**_COMPACTED, "min.compaction.lag.ms": str(_HOUR_MS)},
        names.user_vectors: forgets,
        # Letters end; and what was removed of a person must not lie in the active segment,
        # which is not compacted, until the topic has grown.
        names.dead_letters: {
            "cleanup.policy": "compact,delete",
            "retention.ms": str(dead_letter_days * 24 * _HOUR_MS),
            "max.compaction.lag.ms": str(24 * _HOUR_MS),
            "max.message.bytes": str(MAX_RECORD_BYTES),
        },
        names.forget: arrival,
        names.control: {"retention.ms": str(24 * _HOUR_MS)},
    }


class TopicReport(msgspec.Struct, frozen=True):
    """What :func:`ensure_topics` found and did; ``counts`` are partitions by topic."""

    partitions: int
    created: tuple[str, ...]
    existing: tuple[str, ...]
    counts: dict[str, int]


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect to the brokers for administration.

    Raises:
        ServiceUnavailable: no broker answers, or it refuses us.
        BadInput: the settings of TLS and login contradict each other.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap,
        request_timeout_ms=15_000,
        **kafka_options(settings),
    )
    try:
        await admin.start()
    except (KafkaError, OSError, ValueError) as error:
        await admin.close()
        raise ServiceUnavailable(await no_broker(settings, error)) from error
    try:
        yield admin
    finally:
        await admin.close()


async def partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Read the number of partitions of every topic on the broker."""
    names = await admin.list_topics()
    if not names:
        return {}
    described = await admin.describe_topics(list(names))
    return {topic["topic"]: len(topic["partitions"]) for topic in described}


async def owned_partitions(settings: Settings) -> set[tuple[str, int]] | None:
    """Give the (topic, partition) pairs that members of the group are assigned.

    Returns:
        None while that is not known: the group is rebalancing, or the broker does not tell.

    Raises:
        ServiceUnavailable: no broker answers.
    """
    async with admin_client(settings) as admin:
        try:
            [response] = await admin.describe_consumer_groups([settings.group_id])
        except KafkaError as error:
            raise ServiceUnavailable(
                f"the broker does not describe the group: {error!r}"
            ) from error
    [(code, _, state, _, _, members, *_)] = response.groups
    # A member may be without its assignment also where the broker calls the group stable.
    if code or state != "Stable" or not all(member[4] for member in members):
        return None
    return {
        (topic, number)
        for member in members
        for topic, numbers in ConsumerProtocolMemberAssignment.decode(member[4]).assignment
        for number in numbers
    }


async def ensure_topics(settings: Settings) -> TopicReport:
    """Create the topics that are missing, and check that those which exist fit together.

    Raises:
        ServiceUnavailable: no broker answers, or it refuses to create a topic.
        TopicMismatch: co-partitioned topics have different numbers of partitions.
    """
    names = TopicNames.of(settings)
    configs = topic_configs(names, settings.dead_letter_days)
    async with admin_client(settings) as admin:
        try:
            counts = await partition_counts(admin)
            missing = [name for name in configs if name not in counts]
            created: list[str] = []
            # First the topic that decides about the others: a topic made a moment ago is not told
            # of yet, and then has a count of its own.
            first = {names.behaviours: settings.partitions}
            if names.behaviours in missing:
                created += await _create(admin, first, configs, settings.replication)
                counts = await _settled(admin, first)
            partitions = counts[names.behaviours]
            if partitions != settings.partitions:
                log.info(
                    "topic %s has %d partitions; the setting %d is not used",
                    names.behaviours, partitions, settings.partitions,
                )  # fmt: skip
            rest = dict.fromkeys((name for name in missing if name != names.behaviours), partitions)
            if names.control in rest:
                rest[names.control] = 1  # every worker reads all of it, in order
            created += await _create(admin, rest, configs, settings.replication)
            counts = await _settled(admin, configs)
        except (KafkaError, TimeoutError) as error:
            raise ServiceUnavailable(f"the broker did not create the topics: {error!r}") from error
    check_counts(names, counts)
    existing = tuple(name for name in configs if name not in created)
    ours = {name: counts[name] for name in configs}
    return TopicReport(counts[names.behaviours], tuple(created), existing, ours)


def check_counts(names: TopicNames, counts: Mapping[str, int]) -> None:
    """Return if the topics that share partitions have the same number of them.

    Raises:
        TopicMismatch: one has another; the line says what to do.
    """
    n = counts[names.behaviours]
    for name in names.copartitioned:
        if counts[name] == n:
            continue
        # Growing leaves `behaviours` for the end, so where the changelog has more it is not over.
        remedy = (
            f"growing was interrupted: run `interest topics grow {counts[names.windows]}` again"
            if counts[names.windows] > n
            else f"run `interest topics grow {max(n, counts[name])}` where a topic was grown by "
            "other means, delete the empty one, or set INTEREST_TOPIC_PREFIX to start apart"
        )
        raise TopicMismatch(
            f"topic {name} has {counts[name]} partitions, {names.behaviours} has {n}; "
            f"windows would land on wrong workers: {remedy}"
        )


async def _settled(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """Wait until the brokers tell the partitions of every topic: creation takes a moment."""
    async with asyncio.timeout(_SETTLE_S):
        while True:
            counts = await partition_counts(admin)
            if all(counts.get(name) for name in names):
                return counts
            await asyncio.sleep(0.05)


async def _create(
    admin: AIOKafkaAdminClient,
    partitions: Mapping[str, int],
    configs: dict[str, dict[str, str]],
    replication: int,
) -> list[str]:
    """Create topics, given their numbers of partitions; return those that did not exist."""
    if not partitions:
        return []
    response = await admin.create_topics(
        [
            NewTopic(
                name=name,
                num_partitions=number,
                replication_factor=replication,
                topic_configs=configs[name],
            )
            for name, number in partitions.items()
        ]
    )
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        # Two workers may start at once: the other's topic is as good as ours.
        if code and error is not TopicAlreadyExistsError:
            detail = rest[0] if rest and rest[0] else error.__name__
            raise ServiceUnavailable(f"the broker refused to create topic {name}: {detail}")
    return [name for name, code, *_ in response.topic_errors if not code]
