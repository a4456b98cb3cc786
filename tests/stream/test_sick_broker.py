"""A broker that is away, frozen, slow or cut off: the worker says so, waits, and catches up."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
import pytest

from interest_cli.replay import LoadedBundle
from interest_cli.services import EmbeddedServices
from streams.worker import Worker
from tests.conftest import Servers
from tests.servers import Broker, kafka_process, tansu_process
from tests.stream.conftest import Harness, eventually
from tests.stream.probes import begin, lapsed, not_ready, publish_round, seen, settled, windows
from tests.stream.test_worker import USERS
from tests.toxic import ToxicProxy


class Ward(msgspec.Struct, frozen=True):
    """A broker that can be made ill, itself or on the way to it."""

    broker: Broker
    proxy: ToxicProxy | None = None

    @property
    def way(self) -> ToxicProxy:
        assert self.proxy is not None
        return self.proxy


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with kafka_process(tmp_path_factory.mktemp("sick-kafka")) as broker:
        yield Ward(broker)


@pytest.fixture(scope="module")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    # The broker tells clients the proxy's address, so that no connection goes past it.
    with ToxicProxy() as proxy:
        folder = tmp_path_factory.mktemp("sick-tansu")
        with tansu_process(folder, proxy.address) as broker:
            proxy.target = f"127.0.0.1:{broker.port}"
            yield Ward(broker, proxy)


@pytest.fixture
def ward(request: pytest.FixtureRequest) -> Ward:
    made: Ward = request.getfixturevalue(request.param)
    return made


@pytest.fixture
async def harness(
    ward: Ward, embedded: EmbeddedServices, loaded: LoadedBundle
) -> AsyncIterator[Harness]:
    made = Harness(Servers("ward", ward.broker.bootstrap, embedded.redis_url), loaded)
    yield made
    await made.vectors.close()


Act = Callable[[Ward], object]

SICK: list[tuple[str, Act, Act]] = [
    (
        "kafka",
        lambda ward: ward.broker.kill(),
        lambda ward: ward.broker.start(),
    ),
    (
        "kafka",
        lambda ward: ward.broker.signal(signal.SIGSTOP),
        lambda ward: ward.broker.signal(signal.SIGCONT),
    ),
    (
        "tansu",
        lambda ward: ward.way.refuse(),
        lambda ward: ward.way.heal(),
    ),
    (
        "tansu",
        lambda ward: ward.way.stall(),
        lambda ward: ward.way.heal(),
    ),
]


@pytest.mark.parametrize(
    ("ward", "fall_ill", "recover"),
    SICK,
    indirect=["ward"],
    ids=["killed and back with its disk", "frozen", "away", "silent"],
)
async def test_a_broker_that_is_away_longer_than_a_session_is_waited_for(
    ward: Ward, harness: Harness, fall_ill: Act, recover: Act
) -> None:
    await begin(harness, n_rounds=1)
    async with harness.worker() as worker:
        await seen(harness, 1)
        await settled(harness, worker)
        # These may have been read when the broker goes, or not; encoded, or not.
        await publish_round(harness, 2)
        fall_ill(ward)
        over = lapsed(harness.settings.session_timeout_s * 1.5)
        try:
            await eventually(lambda: _misses_the_broker(worker))
            await eventually(over)
            assert len(worker.dirty) <= len(USERS)
            assert None not in await harness.vectors.fetch(USERS, harness.loaded.bundle.model_id)
        finally:
            recover(ward)
        await publish_round(harness, 3)
        await seen(harness, 3)
        await settled(harness, worker)
        assert set(windows(worker).values()) == {3}
    assert await harness.read("dead-letters") == []


async def _misses_the_broker(worker: Worker) -> bool:
    return "Kafka at" in (await not_ready(worker)).get("worker", "")


@pytest.mark.parametrize("ward", ["tansu"], indirect=True)
async def test_a_slow_broker_costs_freshness_and_nothing_else(ward: Ward, harness: Harness) -> None:
    await begin(harness, n_rounds=1)
    async with harness.worker() as worker:
        await seen(harness, 1)
        ward.way.delay(0.2)
        try:
            for round_ in (2, 3):
                await publish_round(harness, round_)
            await seen(harness, 3)
            assert await not_ready(worker) == {}
        finally:
            ward.way.heal()
        await settled(harness, worker)


@pytest.mark.parametrize("ward", ["tansu"], indirect=True)
async def test_connections_that_break_again_and_again_lose_nothing(
    ward: Ward, harness: Harness
) -> None:
    await begin(harness, n_rounds=1)
    async with harness.worker() as worker:
        await seen(harness, 1)
        for round_ in range(2, 6):
            await publish_round(harness, round_)
            ward.way.cut()
        await seen(harness, 5)
        await settled(harness, worker)
        assert set(windows(worker).values()) == {5}
