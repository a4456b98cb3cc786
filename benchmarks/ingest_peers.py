"""Peers of ``benchmarks.ingest`` that need an environment of their own (``benchmarks.peers``).

    PEERS/bin/python -m benchmarks.ingest_peers KIND JOB

prints one :class:`Run` as JSON. Each decodes with the product's decoder, keeps the last 50 events
per user from full windows on, and has its durable state switched on: Bytewax its recovery store
with the default epoch of ten seconds, Quix Streams RocksDB and a changelog with the default commit
every five. Batch and poll sizes are their defaults, which their manuals recommend.
"""

from __future__ import annotations

import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.ingest_job import Clock, Job, Kept, Run, slid
from interest.event import Event, decode_event


def bytewax(job: Job) -> Run:
    """A dataflow of one worker: Kafka source, decode, ``stateful_map``, a sink that counts."""
    from bytewax import operators as op
    from bytewax.connectors.kafka import KafkaSource
    from bytewax.dataflow import Dataflow
    from bytewax.outputs import DynamicSink, StatelessSinkPartition
    from bytewax.recovery import RecoveryConfig, init_db_dir
    from bytewax.testing import run_main

    clock: Clock | None = None
    read: Run | None = None
    n_read = 0

    class Count(StatelessSinkPartition[Any]):  # type: ignore[misc,unused-ignore]
        def write_batch(self, items: list[Any]) -> None:
            nonlocal n_read, read
            n_read += len(items)
            if n_read == job.n_events:
                assert clock is not None
                read = clock.run(n_read)

    class Counting(DynamicSink[Any]):  # type: ignore[misc,unused-ignore]
        def build(self, _step: str, _worker: int, _workers: int) -> Count:
            return Count()

    def decoded(message: Any) -> tuple[str, Event]:
        nonlocal clock
        if clock is None:
            clock = Clock()
        event = decode_event(message.value)
        return event.user_id, event

    def fold(window: list[Kept] | None, event: Event) -> tuple[list[Kept], int]:
        window = slid(window, event)
        return window, len(window)

    flow = Dataflow("windows")
    source = KafkaSource([job.bootstrap], [job.topic], tail=False)
    events = op.map("decode", op.input("log", flow, source), decoded)
    op.output("count", op.stateful_map("window", events, fold), Counting())
    with tempfile.TemporaryDirectory(prefix="bench-bytewax-") as folder:
        init_db_dir(Path(folder), 1)
        run_main(flow, recovery_config=RecoveryConfig(Path(folder)))
    if clock is None or read is None:
        raise RuntimeError(f"Bytewax read {n_read} of {job.n_events} events")
    return msgspec.structs.replace(read, committed_s=clock.elapsed_s())


def quix_streams(job: Job) -> Run:
    """A dataframe with state per key."""
    from quixstreams import Application

    clock: Clock | None = None
    read: Run | None = None
    n_read = 0

    def fold(event: Event, state: Any) -> None:
        nonlocal n_read, clock, read
        if clock is None:
            clock = Clock()
        state.set("window", slid(state.get("window"), event))
        n_read += 1
        full = n_read == job.n_events
        # The clock is asked now and then: it is no part of the job.
        if full or (n_read % 256 == 0 and read is None and clock.elapsed_s() > job.limit_s):
            read = clock.run(n_read)
            app.stop()

    with tempfile.TemporaryDirectory(prefix="bench-quix-") as folder:
        app = Application(
            broker_address=job.bootstrap,
            consumer_group=f"quix-{uuid.uuid4().hex[:8]}",
            auto_offset_reset="earliest",
            state_dir=folder,
            loglevel="WARNING",
        )
        frame = app.dataframe(app.topic(job.topic, value_deserializer="bytes"))
        frame.apply(decode_event).update(fold, stateful=True)
        app.run()
    if clock is None or read is None:
        raise RuntimeError(f"Quix Streams read {n_read} of {job.n_events} events")
    return msgspec.structs.replace(read, committed_s=clock.elapsed_s())


KINDS: Final[dict[str, Callable[[Job], Run]]] = {"bytewax": bytewax, "quix streams": quix_streams}


def main() -> None:
    """Run one kind."""
    kind, told = sys.argv[1:]
    run = KINDS[kind](msgspec.json.decode(told, type=Job))
    sys.stdout.buffer.write(msgspec.json.encode(run) + b"\n")


if __name__ == "__main__":
    main()
