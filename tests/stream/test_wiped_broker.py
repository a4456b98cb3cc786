"""A broker that lost everything, under a Redis that lost nothing: no vector freezes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from interest_cli.replay import LoadedBundle
from interest_cli.services import EmbeddedServices
from tests.conftest import Servers
from tests.servers import Broker, tansu_process
from tests.stream.conftest import T0, Harness, eventually
from tests.stream.probes import begin, publish_round, seen, settled
from tests.stream.test_worker import USERS


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """An embedded broker: it holds its data in memory, so a kill wipes it."""
    with tansu_process(tmp_path) as made:
        yield made


@pytest.fixture
async def harness(
    broker: Broker, embedded: EmbeddedServices, loaded: LoadedBundle
) -> AsyncIterator[Harness]:
    made = Harness(Servers("wiped", broker.bootstrap, embedded.redis_url), loaded)
    yield made
    await made.vectors.close()


async def test_tokens_of_the_old_broker_do_not_outrank_what_the_new_one_says(
    broker: Broker, harness: Harness
) -> None:
    """The new group counts its generations from the start, and windows their revisions.

    So the tokens in Redis are of the same generation as the new ones, and of later revisions.
    """
    await begin(harness)
    async with harness.worker() as worker:
        for round_ in range(1, 6):
            await publish_round(harness, round_)
            await seen(harness, round_)
        await settled(harness, worker)
    before = await harness.user(USERS[0])
    broker.kill()
    broker.start()
    await begin(harness)
    async with harness.worker() as worker:
        await publish_round(harness, 6)
        await seen(harness, 1)  # the broker's events are all there is
        await settled(harness, worker)
    after = await harness.user(USERS[0])
    assert after.vector.token > before.vector.token
    assert after.vector.event_time_ms > before.vector.event_time_ms


async def test_a_worker_whose_broker_is_wiped_follows_the_new_one_or_ends(
    broker: Broker, harness: Harness
) -> None:
    """It does not stand still: its supervisor can start another that goes on."""
    harness.change(watchdog_s=5.0)
    await begin(harness, n_rounds=1)
    async with harness.worker() as worker:
        await seen(harness, 1)
        await settled(harness, worker)
        broker.kill()
        broker.start()
        await begin(harness)
        await publish_round(harness, 2)

        async def followed_or_ended() -> bool:
            states = await harness.vectors.fetch(USERS, harness.loaded.bundle.model_id)
            newest = {state.vector.event_time_ms for state in states if state is not None}
            return worker._failed.done() or newest == {T0 + 2}

        await eventually(followed_or_ended)
    async with harness.worker() as worker:
        await settled(harness, worker)
        for user in USERS:
            assert (await harness.user(user)).vector.event_time_ms == T0 + 2
