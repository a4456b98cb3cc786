"""However many malformed messages come, each becomes a letter, and the worker runs on.

``MALFORMED=1000000`` makes it a million and looks at memory, too; ``-s`` shows the rates.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
import urllib.request
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy as _PythonBuilder

from interest.partition import partition_of
from streams.dead_letter_desk import letters
from streams.topics import TopicNames, ensure_topics
from tests.conftest import Servers
from tests.e2e.conftest import running
from tests.malformed import malformed
from tests.servers import free_port
from tests.stream.conftest import T0, Harness, event, eventually, item
from tests.stream.test_worker import publish

N = int(os.environ.get("MALFORMED", "3000"))
SEED = int(os.environ.get("SEED", "1"))
#: From so many on, memory says something.
_ENOUGH = 100_000
#: A valid event of each user stands between so many malformed ones.
_EVERY = 50
_BATCH = 1_000
_USERS = [f"user-{i}" for i in range(40)]
#: What a worker may grow by between the first quarter and the end; letters on their way, mostly.
_GROWTH_BYTES = 48 * 1024 * 1024


class Log:
    """What was published: per partition, in the order of offsets, which reasons may be given."""

    def __init__(self, n_partitions: int) -> None:
        self._sets: list[frozenset[str]] = [frozenset()]
        self._index: dict[frozenset[str], int] = {frozenset(): 0}
        self.of: list[array[int]] = [array("H") for _ in range(n_partitions)]

    def add(self, partition: int, reasons: frozenset[str]) -> None:
        index = self._index.setdefault(reasons, len(self._sets))
        if index == len(self._sets):
            self._sets.append(reasons)
        self.of[partition].append(index)

    def reasons(self, partition: int, offset: int) -> frozenset[str]:
        return self._sets[self.of[partition][offset]]


async def publish_all(harness: Harness, log: Log) -> int:
    """Publish malformed messages with valid ones between them; return how many are valid."""
    topic = TopicNames.of(harness.settings).behaviours
    n_partitions = len(log.of)
    producer = AIOKafkaProducer(
        bootstrap_servers=harness.settings.kafka_bootstrap, acks="all", linger_ms=5,
        max_request_size=4 * 1024 * 1024,
    )  # fmt: skip
    await producer.start()
    n_valid = 0
    try:
        sent = []
        for i, record in enumerate(malformed(SEED, N)):
            partition = i % n_partitions
            log.add(partition, record.reasons)
            sent.append(
                await producer.send(
                    topic, record.value, record.key, partition, headers=list(record.headers)
                )
            )
            if i % _EVERY == 0:
                user = _USERS[n_valid % len(_USERS)]
                home = partition_of(user, n_partitions)
                log.add(home, frozenset())
                valid = event(f"good-{n_valid}", user, ts=T0 + n_valid)
                sent.append(await producer.send(topic, valid, user.encode(), home))
                n_valid += 1
            if len(sent) >= _BATCH:
                await asyncio.gather(*sent)
                sent.clear()
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return n_valid


class Probe:
    """Reads a worker's metrics from outside."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    async def total(self, name: str) -> int:
        text = await asyncio.to_thread(self._read)
        return int(
            sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)", text, re.M))
        )

    def _read(self) -> str:
        try:
            with urllib.request.urlopen(self._url, timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""  # not listening yet


async def test_each_malformed_message_becomes_a_letter_with_a_reason(
    harness: Harness, servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A machine that does nothing but this may be silent for longer than other tests allow.
    harness.change(session_timeout_s=15.0)
    settings = harness.settings
    await ensure_topics(settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    log = Log(settings.partitions)
    port = free_port()
    env = {
        f"INTEREST_{name.upper()}": str(getattr(settings, name))
        for name in (
            "kafka_bootstrap", "redis_url", "redis_prefix", "topic_prefix", "group_id",
            "session_timeout_s", "fetch_max_wait_ms",
        )
    }  # fmt: skip
    publishing = asyncio.create_task(publish_all(harness, log))
    with running("worker", cwd=tmp_path, env={**env, "INTEREST_WORKER_PORT": str(port)}) as worker:
        process = psutil.Process(worker.process.pid)
        probe = Probe(port)
        rss: dict[int, int] = {}  # letters so far -> resident bytes
        began = n_buried = 0
        n_valid: int | None = None
        deadline = time.monotonic() + 240 + N / 100
        n_folded = 0
        lag = 1
        while n_buried < N or n_valid is None or n_folded < n_valid or lag:
            assert worker.process.poll() is None, worker.output
            assert time.monotonic() < deadline, f"{n_buried} letters, {worker.output[-3000:]}"
            if publishing.done():
                n_valid = publishing.result()
            n_buried = await probe.total("interest_dead_letters_total")
            n_folded = await probe.total("interest_events_total")
            lag = await probe.total("interest_lag_offsets")
            if n_buried:
                began = began or time.monotonic_ns()
                rss[n_buried] = process.memory_info().rss
            await asyncio.sleep(0.1)
        assert n_buried >= N  # what is read again after a rebalance counts again
        took_s = (time.monotonic_ns() - began) / 1e9
        with capsys.disabled():
            print(_report(servers.broker, took_s, rss))
        if N >= _ENOUGH:
            settled = max(size for n, size in rss.items() if n <= N / 4)
            assert max(rss.values()) - settled < _GROWTH_BYTES
        for user in _USERS[:n_valid]:
            await eventually(partial(harness.user, user))
    seen = [bytearray(len(column)) for column in log.of]
    counts: Counter[str] = Counter()
    async for lying in letters(settings):
        origin, reason = lying.letter.origin, lying.letter.last.reason
        assert reason in log.reasons(origin.partition, origin.offset), lying
        assert not seen[origin.partition][origin.offset]
        seen[origin.partition][origin.offset] = 1
        counts[reason] += 1
    assert counts.total() == N
    assert len(counts) >= 9


class _Raw(str):
    """A name that is sent as other bytes than its text, as a client in C may."""

    def encode(self, *args: object) -> bytes:
        return b"trace\xff"


async def test_a_header_name_that_is_no_utf8_does_not_stop_the_partition(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", ("mug", item("mug", "A red mug")))
    names, home = TopicNames.of(harness.settings), partition_of("u", harness.settings.partitions)
    with monkeypatch.context() as patched:
        patched.setattr(message_accumulator, "DefaultRecordBatchBuilder", _PythonBuilder)
        producer = AIOKafkaProducer(bootstrap_servers=harness.settings.kafka_bootstrap, acks="all")
        await producer.start()
        odd = [(_Raw("trace"), b"1")]
        batch = producer.create_batch()
        for value, headers in (
            (event("a", "u"), []), (event("b", "u", ts=T0 + 1), odd), (b"{", odd),
            (event("c", "u", ts=T0 + 2), []),
        ):  # fmt: skip
            assert batch.append(key=b"u", value=value, timestamp=T0, headers=headers)
        await (await producer.send_batch(batch, names.behaviours, partition=home))
        await producer.stop()
    async with harness.worker() as worker:
        await harness.idle(worker)
    assert (await harness.user("u")).vector.n_events == 3
    [lying] = [each async for each in letters(harness.settings)]
    assert lying.letter.original_headers == (("trace\\xff", b"1"),)


def _report(broker: str, took_s: float, rss: dict[int, int]) -> str:
    def lines() -> Iterator[str]:
        yield f"\n{broker}: {N} malformed messages, {N / max(took_s, 1e-9):,.0f}/s"
        step = max(1, len(rss) // 10)
        for n in sorted(rss)[::step]:
            yield f"  {n:>9,} letters  {rss[n] / 2**20:6.0f} MiB resident"

    return "\n".join(lines())
