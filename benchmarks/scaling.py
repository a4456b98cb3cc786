"""The paper model of ``docs/scaling.md``: what so many users and events need, from constants.

Constants are of three kinds: measured (a row of ``results.json``), documented by others, and
assumed (prices, how full a machine may be). The document says which is which, so that anyone can
put in their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from benchmarks.results import Results
from benchmarks.tables import markdown, number

_GIB: Final = 2**30
_CHECKPOINT_S: Final = 60
_BINS: Final = 4_000


@dataclass(frozen=True)
class Constant:
    """One number of the model, and where it comes from."""

    name: str
    value: float
    unit: str
    source: str


class Place(NamedTuple):
    """A row of ``results.json``, and the command that measures it."""

    benchmark: str
    subject: str
    name: str

    @property
    def command(self) -> str:
        """What measures it."""
        benchmark, _, device = self.benchmark.removesuffix(")").partition(" (")
        # as :func:`benchmarks.targets.labelled` puts it
        return f"make bench ONLY={benchmark}" + (f" DEVICE={device}" if device else "")


INGEST: Final = Place("ingest", "kafka: worker", "rate to the last commit")
WINDOW: Final = Place("many-users", "a window of 50 events", "resident memory")
ENCODE: Final = Place("user-encode", "Beauty, d = 64", "ours")
ENCODE_CUDA: Final = ENCODE._replace(benchmark="user-encode (cuda)")
RECORD: Final = Place("many-users", "a window of 50 events", "changelog record")
REDIS: Final = Place("scale", "a user in Redis, 50 events", "memory, 64 dimensions")
UPSERT: Final = Place("scale", "a user in Redis, 50 events", "upserts, 64 dimensions")


class NotMeasured(Exception):
    """A constant of the model is not in the results; the text names the command."""


class Constants(NamedTuple):
    """What the model rests on; see :func:`constants` for units and sources."""

    ingest: Constant
    window: Constant
    record: Constant
    encode: Constant
    cores: Constant
    encode_gpu: Constant
    redis: Constant
    upsert: Constant
    event: Constant
    item: Constant
    copies_kafka: Constant
    copies: Constant
    busy: Constant
    redis_shard: Constant
    core_hour: Constant
    gib_hour: Constant
    gpu_hour: Constant


def constants(results: Results) -> Constants:
    """Take the measured constants from the results; the others stand here.

    Raises:
        NotMeasured: a row is missing.
    """

    def measured(name: str, unit: str, place: Place) -> Constant:
        for row in results.measurements:
            if (row.benchmark, row.subject, row.name) == place and row.value is not None:
                return Constant(name, row.value, unit, f"measured: `{place.command}`")
        raise NotMeasured(f"{name}: run `{place.command}`")

    try:
        gpu = measured("users encoded by a GPU, d = 64", "1/s", ENCODE_CUDA)
    except NotMeasured:
        gpu = Constant("users encoded by a GPU, d = 64", 500_000, "1/s", "assumed, none was here")
    return Constants(
        ingest=measured("events folded by a worker process", "1/s", INGEST),
        window=measured("a full window in a worker's memory", "bytes", WINDOW),
        record=measured("a full window in the changelog", "bytes", RECORD),
        encode=measured("users encoded by all cores, d = 64", "1/s", ENCODE),
        cores=Constant("cores of that machine", results.machine.cores, "", "`machine` there"),
        encode_gpu=gpu,
        redis=measured("a user in Redis, d = 64", "bytes", REDIS),
        upsert=measured("upserts of a Redis process", "1/s", UPSERT),
        event=Constant("an event on the wire", 183, "bytes", "the log of `make bench ONLY=ingest`"),
        item=Constant(
            "an item in Qdrant, d = 64", 64 * 4 * 1.5 + 512, "bytes",
            "Qdrant's manual: 4 bytes a number × 1.5; assumed: 512 of payload",
        ),
        copies_kafka=Constant("copies in Kafka", 3, "", "assumed"),
        copies=Constant("copies in Redis and in Qdrant", 2, "", "assumed"),
        busy=Constant("share of a machine that is used", 0.5, "", "assumed"),
        redis_shard=Constant("memory of a Redis shard", 24, "GiB", "assumed"),
        core_hour=Constant("a core for an hour", 0.04, "$", "assumed"),
        gib_hour=Constant("a GiB of memory for an hour", 0.005, "$", "assumed"),
        gpu_hour=Constant("a GPU for an hour", 3.0, "$", "assumed"),
    )  # fmt: skip


@dataclass(frozen=True)
class Load:
    """A shop: users in all, events/s at peak, items."""

    users: int
    events_per_s: int
    items: int


LOADS: Final = (
    Load(1_000_000, 1_000, 100_000),
    Load(10_000_000, 100_000, 1_000_000),
    Load(100_000_000, 1_000_000, 10_000_000),
)


class Plan(NamedTuple):
    """What a load needs."""

    partitions: int
    intake_cores: int
    encode_cores: int
    encode_gpus: int
    worker_gib: float
    redis_gib: float
    redis_shards: int
    qdrant_gib: float
    kafka_mb_s: float
    changelog_mb_s: float
    on_cores: float
    on_gpus: float


def plan(load: Load, c: Constants) -> Plan:
    """Work it out for the worst case: every window full, a vector for every event.

    The changelog holds each window that changed once a checkpoint, users drawn by Zipf's law.
    Costs are in $ per million events; brokers' disks and the network are not in them.
    """
    busy, rate = c.busy.value, load.events_per_s
    intake = math.ceil(rate / (c.ingest.value * busy))
    cores = math.ceil(rate / (c.encode.value / c.cores.value * busy))
    gpus = math.ceil(rate / (c.encode_gpu.value * busy))
    worker_gib = load.users * c.window.value / _GIB
    redis_gib = load.users * c.redis.value / _GIB
    shards = max(
        math.ceil(redis_gib / c.redis_shard.value), math.ceil(rate / (c.upsert.value * busy))
    )
    qdrant_gib = load.items * c.item.value / _GIB
    changed_per_s = distinct(rate * _CHECKPOINT_S, load.users) / _CHECKPOINT_S
    copies = c.copies.value
    memory = worker_gib + copies * (redis_gib + qdrant_gib)
    shared = (intake + copies * shards) * c.core_hour.value + memory * c.gib_hour.value
    millions = rate * 3600 / 1e6
    return Plan(
        partitions=2 * intake,
        intake_cores=intake,
        encode_cores=cores,
        encode_gpus=gpus,
        worker_gib=worker_gib,
        redis_gib=copies * redis_gib,
        redis_shards=shards,
        qdrant_gib=copies * qdrant_gib,
        kafka_mb_s=c.copies_kafka.value * rate * c.event.value / 1e6,
        changelog_mb_s=c.copies_kafka.value * changed_per_s * c.record.value / 1e6,
        on_cores=(shared + cores * c.core_hour.value) / millions,
        on_gpus=(shared + gpus * c.gpu_hour.value) / millions,
    )


def distinct(n_events: float, n_users: int) -> float:
    """Say how many of the users ``n_events`` reach on average, by Zipf's law with exponent 1.

    Ranks are taken together in bins of equal ratio; exact for the first ranks.
    """
    edges = np.unique(np.geomspace(1, n_users + 1, _BINS).astype(np.int64))
    first, widths = edges[:-1].astype(float), np.diff(edges).astype(float)
    middle = first + (widths - 1) / 2
    share = 1 / middle / np.sum(widths / middle)
    return float(np.sum(widths * -np.expm1(n_events * np.log1p(-np.minimum(share, 0.5)))))


_ROWS: Final = {
    "partitions of `behaviours`, room to double": "partitions",
    "cores for intake (worker processes)": "intake_cores",
    "cores for encoding": "encode_cores",
    "… or GPUs": "encode_gpus",
    "memory of all workers' windows, GiB": "worker_gib",
    "memory of Redis with its copies, GiB": "redis_gib",
    "Redis shards": "redis_shards",
    "memory of Qdrant with its copies, GiB": "qdrant_gib",
    "events into Kafka with copies, MB/s": "kafka_mb_s",
    "changelog into Kafka with copies, MB/s": "changelog_mb_s",
    "$ per million events, encoding on cores": "on_cores",
    "… on GPUs": "on_gpus",
}


def constants_table(c: Iterable[Constant]) -> str:
    """Give the constants and their sources as Markdown."""
    rows = [(k.name, number(k.value), k.unit, k.source) for k in c]
    return markdown(("constant", "value", "unit", "source"), rows)


def plan_table(c: Constants) -> str:
    """Give the model's answer for :data:`LOADS` as Markdown."""
    plans = [plan(load, c) for load in LOADS]
    head = [
        f"{number(load.users / 1e6)}M users, {number(load.events_per_s)} events/s, "
        f"{number(load.items / 1e3)}k items"
        for load in LOADS
    ]
    rows = [
        (name, *(number(getattr(one, field)) for one in plans)) for name, field in _ROWS.items()
    ]
    return markdown(("", *head), rows)
