"""What reads the log in ``benchmarks.ingest``: each in a process of its own.

    python -m benchmarks.ingest_runners KIND JOB

prints one :class:`Run` as JSON. The clock starts with the first records in hand, so that joining
a group and recovery do not count. Every kind that decodes does so with the product's own decoder.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import tempfile
import tracemalloc
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import faust
import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.ingest_job import FULL, Clock, Job, Run, slid
from benchmarks.stubs import bundle, run_as_worker, settings_of, stub_worker
from interest.event import decode_event
from streams.worker import Worker

_POLL_S: Final = 0.002
#: Warming up may take so many times the limit of a run.
_WARM: Final = 4


async def worker(job: Job) -> Run:
    """The product's worker; encoder and vector store are stubs that accept everything."""
    settings = settings_of(job.bootstrap, job.prefix, job.n_partitions)
    made, vectors = stub_worker(settings, bundle())
    gc.collect()
    idle = psutil.Process().memory_info().rss
    if job.traced:
        tracemalloc.start()
    started = asyncio.ensure_future(made.start())
    while not (hasattr(made, "parts") and made.progress.committed) and not started.done():
        await asyncio.sleep(_POLL_S)
    n_before = await _warm(made, job)
    clock, n_upserted = Clock(), vectors.n_upserts
    n_read = n_before
    while n_read < job.n_events and clock.elapsed_s() < job.limit_s:
        await asyncio.sleep(_POLL_S)
        n_read = sum(made.progress.positions.values())
    read = clock.run(n_read - n_before, n_vectors=vectors.n_upserts - n_upserted)
    await started
    # The product's timer would add its idle time to a run of seconds.
    await made.parts.checkpoint.take(made.parts.consumer)
    committed_s = clock.elapsed_s()
    gc.collect()
    grown = psutil.Process().memory_info().rss - idle
    traced = tracemalloc.get_traced_memory()[0] if job.traced else 0
    await made.stop()
    return msgspec.structs.replace(
        read, committed_s=committed_s, n_warm=n_before, grown_bytes=grown, traced_bytes=traced
    )


async def _warm(made: Worker, job: Job) -> int:
    """Let it read what comes before the clock starts, in bounded time; give how much it did."""
    clock = Clock()
    n_read = 0
    while n_read < job.n_warm and clock.elapsed_s() < _WARM * job.limit_s:
        await asyncio.sleep(_POLL_S)
        n_read = sum(made.progress.positions.values())
    return n_read


async def faust_table(job: Job) -> Run:
    """A Faust agent as its manual has it: one event at a time into a table with a changelog."""
    async with _faust_app(job) as app:
        table = app.Table("windows", default=lambda: list(FULL), partitions=job.n_partitions)

        def fold(raw: bytes) -> None:
            event = decode_event(raw)
            table[event.user_id] = slid(table[event.user_id], event)

        return await _agent(app, job, fold)


async def faust_nothing(job: Job) -> Run:
    """A Faust agent that does nothing with an event: what Faust takes for itself."""
    async with _faust_app(job) as app:
        return await _agent(app, job, lambda _raw: None)


@asynccontextmanager
async def _faust_app(job: Job) -> AsyncIterator[Any]:
    with tempfile.TemporaryDirectory(prefix="bench-faust-") as folder:  # Faust wants one
        app = faust.App(
            # Twice the same name would read the first one's changelog.
            f"plain-{uuid.uuid4().hex[:8]}",
            datadir=folder,
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
        yield app
        await app.stop()


async def _agent(app: Any, job: Job, handle: Callable[[bytes], None]) -> Run:
    done = asyncio.Event()
    clock: Clock | None = None
    n_read = 0

    @app.agent(app.topic(job.topic, value_serializer="raw"))  # type: ignore[untyped-decorator,unused-ignore]
    async def read(stream: Any) -> None:
        nonlocal clock, n_read
        async for raw in stream:
            clock = clock or Clock()
            handle(raw)
            n_read += 1
            if n_read == job.n_events or clock.elapsed_s() > job.limit_s:
                done.set()

    await app.start()
    await done.wait()
    assert clock is not None
    return clock.run(n_read)


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
        if clock.elapsed_s() > job.limit_s:
            break
    assert clock is not None
    run = clock.run(n_read)
    await consumer.stop()
    return run


KINDS: Final[dict[str, Callable[[Job], Coroutine[Any, Any, Run]]]] = {
    "worker": worker,
    "faust table": faust_table,
    "faust nothing": faust_nothing,
    "bare loop": bare,
    "bare fetch": lambda job: bare(job, None),
}


def main() -> None:
    """Run one kind."""
    kind, told = sys.argv[1:]
    job = KINDS[kind](msgspec.json.decode(told, type=Job))
    # Each as whoever writes it starts it.
    run = run_as_worker(job) if kind == "worker" else asyncio.run(job)
    sys.stdout.buffer.write(msgspec.json.encode(run) + b"\n")


if __name__ == "__main__":
    main()
