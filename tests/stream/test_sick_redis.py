"""A Redis that is away, hangs, is slow, full, read-only or loading: the worker says so and waits.

Nothing is lost, nothing is committed that is not readable, and what waits is bounded.
"""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from interest import metrics as m
from interest_cli.replay import LoadedBundle
from interest_cli.services import EmbeddedServices
from tests.stream.conftest import eventually
from tests.stream.probes import (
    Observed,
    begin,
    committed,
    folded,
    lapsed,
    not_ready,
    publish_round,
    seen,
    settled,
)
from tests.stream.redis_ward import Ward, redis_ward
from tests.stream.test_worker import USERS


@pytest.fixture
async def ward(
    embedded: EmbeddedServices,
    loaded: LoadedBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Ward]:
    async with redis_ward(embedded.kafka_bootstrap, loaded, tmp_path, monkeypatch) as made:
        yield made


def _start_loading(ward: Ward) -> None:
    """Come back with 100 MB of data, which take long enough to load for what is looked at."""
    ward.command("DEBUG", "POPULATE", 500, "ballast", 200_000)
    ward.crash()
    ward.redis.start(loaded=False)


def _load_quickly(ward: Ward) -> None:
    """Cut the loading short; a setting of the command line, which is taken last, decides."""
    ward.redis.stop()
    ward.redis._command += ["--key-load-delay", "0"]
    ward.redis.start()


SICK: dict[str, tuple[Callable[[Ward], object], Callable[[Ward], object], str]] = {
    "away": (
        lambda ward: ward.proxy.refuse(),
        lambda ward: ward.proxy.heal(),
        "(?i)connect",
    ),
    "silent": (
        lambda ward: ward.proxy.stall(),
        lambda ward: ward.proxy.heal(),
        "(?i)time",
    ),
    "frozen": (
        lambda ward: ward.signal(signal.SIGSTOP),
        lambda ward: ward.signal(signal.SIGCONT),
        "(?i)time",
    ),
    "full": (
        lambda ward: ward.command("CONFIG", "SET", "maxmemory", 1),
        lambda ward: ward.command("CONFIG", "SET", "maxmemory", 0),
        "(?i)memory",
    ),
    "a replica": (
        lambda ward: ward.command("REPLICAOF", "127.0.0.1", 1),
        lambda ward: ward.command("REPLICAOF", "NO", "ONE"),
        "(?i)read.?only",
    ),
    "crashed, and back with its data": (
        lambda ward: ward.crash(),
        lambda ward: ward.redis.start(),
        "(?i)connect|closed|reset",
    ),
    "loading its data": (
        _start_loading,
        _load_quickly,
        "(?i)loading",
    ),
}


@pytest.mark.parametrize("sickness", SICK)
async def test_a_sick_redis_holds_the_commits_and_is_caught_up_with(
    ward: Ward, sickness: str
) -> None:
    fall_ill, recover, complaint = SICK[sickness]
    harness, metrics = ward.harness, Observed()
    await begin(harness, n_rounds=1)
    async with harness.worker(metrics) as worker:
        await seen(harness, 1)
        await settled(harness, worker)
        before = await committed(harness)
        fall_ill(ward)
        await publish_round(harness, 2)

        async def complains() -> bool:
            said = (await not_ready(worker)).get("redis", "")
            return re.search(complaint, said) is not None

        await eventually(complains)
        await folded(worker, 2)

        async def tried_again() -> bool:
            return metrics.counted[m.RETRIES, "ServiceUnavailable"] >= 2

        await eventually(tried_again)
        assert len(worker.dirty) <= len(USERS), "one entry per user, however long it lasts"
        assert await committed(harness) == before, "what is not readable is not committed"
        assert all("Redis" in reason for reason in worker.unready()), worker.unready()
        recover(ward)
        await seen(harness, 2)
        await settled(harness, worker)
        assert len(worker.dirty) == 0


async def test_a_slow_redis_costs_freshness_and_nothing_else(ward: Ward) -> None:
    harness, metrics = ward.harness, Observed()
    await begin(harness, n_rounds=1)
    async with harness.worker(metrics) as worker:
        await seen(harness, 1)
        ward.proxy.delay(0.1)
        for round_ in range(2, 7):
            await publish_round(harness, round_)
        await seen(harness, 6)
        assert await not_ready(worker) == {}
        ward.proxy.heal()
        await settled(harness, worker)
        assert metrics.total(m.RETRIES) == 0


async def test_what_is_read_ahead_of_the_commit_is_bounded(ward: Ward) -> None:
    """However long Redis is away and however much arrives, the rest stays at the broker."""
    harness, metrics, limit, slice_ = ward.harness, Observed(), 1_000, 256
    harness.change(max_uncommitted=limit)
    await begin(harness)
    async with harness.worker(metrics) as worker:
        await harness.idle(worker)
        ward.proxy.refuse()
        for round_ in range(1, 5):
            await publish_round(harness, round_, n_each=50)

        async def full() -> bool:
            return worker.progress.uncommitted > limit

        await eventually(full)
        tries = metrics.total(m.RETRIES)

        async def much_later() -> bool:
            return metrics.total(m.RETRIES) >= tries + 2

        await eventually(much_later)
        assert worker.progress.uncommitted <= limit + slice_
        assert sum((await worker.lag()).values()) > 4 * 50 * len(USERS) - limit - 2 * slice_
        assert len(worker.dirty) <= 2 * len(USERS)
        ward.proxy.heal()
        await seen(harness, 50)  # of 200, the newest
        await settled(harness, worker)
        assert worker.progress.uncommitted == 0


async def test_no_watchdog_bites_while_redis_is_away(ward: Ward) -> None:
    harness = ward.harness
    harness.change(watchdog_s=3.0)
    await begin(harness)
    async with harness.worker() as worker:
        await harness.idle(worker)
        ward.proxy.refuse()
        await publish_round(harness, 1)
        await eventually(lapsed(2 * 3.0))
        assert not worker._failed.done()
        ward.proxy.heal()
        await seen(harness, 1)
        await settled(harness, worker)
