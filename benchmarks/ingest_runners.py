"""What reads the log in ``benchmarks.ingest``: each in a process of its own.

    python -m benchmarks.ingest_runners KIND BOOTSTRAP PREFIX N_EVENTS N_PARTITIONS LIMIT_S

prints one :class:`Run` as JSON. The clock starts with the first records in hand, so that joining
a group and recovery do not count. Every kind decodes with the product's own decoder.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any, Final

import faust
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.stubs import bundle, settings_of, stub_worker
from interest.event import decode_event
from streams.topics import TopicNames

_WINDOW: Final = 50
_POLL_S: Final = 0.002


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the log; ``committed_s`` also waits for the last checkpoint."""

    n_events: int
    wall_s: float
    cpu_s: float
    committed_s: float = 0.0
    n_vectors: int = 0


class Job(msgspec.Struct, frozen=True):
    """What to read, and for how long at most."""

    bootstrap: str
    prefix: str
    n_events: int
    n_partitions: int
    limit_s: float

    @property
    def topic(self) -> str:
        """The log."""
        return TopicNames.of(settings_of(self.bootstrap, self.prefix, self.n_partitions)).behaviours


class Clock:
    """Wall and processor time since the first records."""

    def __init__(self) -> None:
        self.wall = time.perf_counter()
        self.cpu = time.process_time()

    def run(self, n_events: int, **fields: Any) -> Run:
        """Stop the clock."""
        return Run(
            n_events=n_events,
            wall_s=time.perf_counter() - self.wall,
            cpu_s=time.process_time() - self.cpu,
            **fields,
        )


async def worker(job: Job) -> Run:
    """The product's worker; encoder and vector store are stubs that accept everything."""
    settings = settings_of(job.bootstrap, job.prefix, job.n_partitions)
    made, vectors = stub_worker(settings, bundle())
    started = asyncio.ensure_future(made.start())
    while not (hasattr(made, "parts") and made.progress.committed) and not started.done():
        await asyncio.sleep(_POLL_S)
    clock = Clock()
    n_read = 0
    while n_read < job.n_events and time.perf_counter() - clock.wall < job.limit_s:
        await asyncio.sleep(_POLL_S)
        n_read = sum(made.progress.positions.values())
    read = clock.run(n_read, n_vectors=vectors.n_upserts)
    await started
    # The product's timer would add its idle time to a run of seconds.
    await made.parts.checkpoint.take(made.parts.consumer)
    committed_s = time.perf_counter() - clock.wall
    await made.stop()
    return msgspec.structs.replace(read, committed_s=committed_s)


async def faust_table(job: Job) -> Run:
    """A Faust agent as its manual has it: one event at a time into a table with a changelog."""
    # Twice the same name would read the first one's changelog.
    folder = tempfile.TemporaryDirectory(prefix="interest-bench-")  # Faust wants one
    app = faust.App(
        f"plain-{uuid.uuid4().hex[:8]}",
        datadir=folder.name,
        broker=f"kafka://{job.bootstrap}",
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_partitions=job.n_partitions,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.5,
        broker_rebalance_timeout=10.0,
    )
    table = app.Table("windows", default=list, partitions=job.n_partitions)
    topic = app.topic(job.topic, value_serializer="raw")
    done = asyncio.Event()
    clock = Clock()
    n_read = 0

    @app.agent(topic)  # type: ignore[untyped-decorator,unused-ignore]
    async def fold(stream: Any) -> None:
        nonlocal clock, n_read
        async for raw in stream:
            if not n_read:
                clock = Clock()
            event = decode_event(raw)
            table[event.user_id] = [*table[event.user_id], event.item_id][-_WINDOW:]
            n_read += 1
            if n_read == job.n_events or time.perf_counter() - clock.wall > job.limit_s:
                done.set()

    await app.start()
    await done.wait()
    run = clock.run(n_read)
    await app.stop()
    return run


async def bare(job: Job, decode: Callable[[bytes], Any] | None = decode_event) -> Run:
    """A loop over aiokafka's fetches; the limit of Python on this job."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=job.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    partitions = [TopicPartition(job.topic, i) for i in range(job.n_partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    windows: defaultdict[str, list[Any]] = defaultdict(list)
    clock: Clock | None = None
    n_read = 0
    while n_read < job.n_events:
        fetched = await consumer.getmany(timeout_ms=1_000)
        clock = clock or Clock()
        for record in itertools.chain.from_iterable(fetched.values()):
            if decode is not None:
                event = decode(record.value)
                windows[event.user_id].append(event)
            n_read += 1
        if time.perf_counter() - clock.wall > job.limit_s:
            break
    assert clock is not None
    run = clock.run(n_read)
    await consumer.stop()
    return run


KINDS: Final[dict[str, Callable[[Job], Coroutine[Any, Any, Run]]]] = {
    "worker": worker,
    "faust table": faust_table,
    "bare loop": bare,
    "bare fetch": lambda job: bare(job, None),
}


def main() -> None:
    """Run one kind."""
    kind, bootstrap, prefix, n_events, n_partitions, limit_s = sys.argv[1:]
    job = Job(bootstrap, prefix, int(n_events), int(n_partitions), float(limit_s))
    run = asyncio.run(KINDS[kind](job))
    sys.stdout.buffer.write(msgspec.json.encode(run) + b"\n")


if __name__ == "__main__":
    main()
