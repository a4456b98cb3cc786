"""A Redis that comes back without what it held: filled again, with or without new events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from interest_cli.replay import LoadedBundle
from interest_cli.services import EmbeddedServices
from tests.stream.conftest import eventually
from tests.stream.probes import all_have, begin, publish_round, seen, settled
from tests.stream.redis_ward import Ward, redis_ward


@pytest.fixture
async def ward(
    embedded: EmbeddedServices,
    loaded: LoadedBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Ward]:
    async with redis_ward(embedded.kafka_bootstrap, loaded, tmp_path, monkeypatch) as made:
        yield made


def _flush(ward: Ward) -> None:
    ward.command("FLUSHALL")


def _restart_empty(ward: Ward) -> None:
    ward.redis.stop()
    ward.dump.unlink(missing_ok=True)
    ward.redis.start()


def _restart_older(ward: Ward) -> None:
    ward.redis.stop()
    ward.redis.start()


@pytest.mark.parametrize("lose", [_flush, _restart_empty, _restart_older])
async def test_a_redis_that_forgot_is_filled_again_without_any_new_event(
    ward: Ward, lose: Callable[[Ward], None]
) -> None:
    """Flushed, restarted without data, or restored from a copy of a round ago."""
    harness = ward.harness
    await begin(harness, n_rounds=1)
    async with harness.worker() as worker:
        await seen(harness, 1)
        await settled(harness, worker)
        ward.command("SAVE")
        await publish_round(harness, 2)
        await seen(harness, 2)
        await settled(harness, worker)
        popular = await harness.vectors.fetch_popular(1)
        lose(ward)
        assert not await all_have(harness, 2)
        await seen(harness, 2)

        async def readable_as_before() -> bool:
            live = await harness.vectors.live_model()
            return live is not None and await harness.vectors.fetch_popular(1) == popular

        await eventually(readable_as_before)
        await settled(harness, worker)


async def test_a_redis_that_forgot_while_no_worker_ran_is_filled_at_the_next_start(
    ward: Ward,
) -> None:
    harness = ward.harness
    await begin(harness, n_rounds=1)
    async with harness.worker() as worker:
        await seen(harness, 1)
        await settled(harness, worker)
    _flush(ward)
    async with harness.worker() as worker:
        await seen(harness, 1)
        await settled(harness, worker)
        assert await harness.vectors.live_model() is not None
