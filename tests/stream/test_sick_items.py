"""An item index that is away or hangs: the start names it, a running worker waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from qdrant_client import AsyncQdrantClient

from interest.errors import ServiceUnavailable
from interest_cli.replay import LoadedBundle
from interest_cli.services import EmbeddedServices
from store import qdrant_items
from store.qdrant_items import QdrantItems
from tests.conftest import Servers
from tests.stream.conftest import T0, Harness, event, eventually, item
from tests.stream.probes import (
    begin,
    committed,
    end_offsets,
    not_ready,
    publish_round,
    seen,
    settled,
)
from tests.stream.test_worker import publish
from tests.toxic import ToxicProxy


@pytest.fixture
def proxy() -> Iterator[ToxicProxy]:
    """An address with nothing behind it that can serve items."""
    with ToxicProxy() as made:
        yield made


@pytest.fixture
async def harness(
    embedded: EmbeddedServices, loaded: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Harness]:
    monkeypatch.setattr(qdrant_items, "_TIMEOUT_S", 1)
    made = Harness(Servers("tansu", embedded.kafka_bootstrap, embedded.redis_url), loaded)
    yield made
    await made.vectors.close()


@pytest.mark.parametrize("sickness", ["refuse", "stall"])
async def test_a_start_without_an_item_index_says_which_service_is_missing(
    harness: Harness, proxy: ToxicProxy, sickness: str
) -> None:
    getattr(proxy, sickness)()
    harness.change(qdrant_url=f"http://{proxy.address}")
    with pytest.raises(ServiceUnavailable, match=f"Qdrant at http://{proxy.address}"):
        async with harness.worker():
            pytest.fail("it must not start")


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@pytest.mark.parametrize("sickness", ["refuse", "stall"])
async def test_an_item_index_that_is_away_holds_what_needs_it_and_nothing_else(
    harness: Harness, proxy: ToxicProxy, sickness: str
) -> None:
    # No server can be had here that would go away; so the client's own engine answers while all
    # is well, and the real client asks an address that does not.
    harness.change(qdrant_url=":memory:")
    await begin(harness, n_rounds=1)
    async with harness.worker() as worker:
        await seen(harness, 1)
        await settled(harness, worker)
        items = worker.ports.items
        assert isinstance(items, QdrantItems)
        well = items._client
        getattr(proxy, sickness)()
        away = items._client = AsyncQdrantClient(
            f"http://{proxy.address}", timeout=1, check_compatibility=False
        )

        async def complains() -> bool:
            return "items" in await not_ready(worker)

        await eventually(complains)
        await publish_round(harness, 2)
        await seen(harness, 2)  # the items that are needed are at hand
        before = await committed(harness, "catalogue")
        await publish(harness, "catalogue", ("pot", item("pot", "A blue pot")))
        await publish(harness, "behaviours", ("u", event("late", "u", "pot", ts=T0 + 3)))

        async def waits() -> bool:
            return bool(worker.parts.batches.stuck)

        await eventually(waits)
        assert "Qdrant" in (await not_ready(worker))["worker"]
        assert await committed(harness, "catalogue") == before, "it is neither stored nor read"
        items._client = well
        await away.close()

        async def resolved() -> bool:
            state = await harness.user("u")
            return state is not None and not state.vector.is_cold

        await eventually(resolved)
        await settled(harness, worker)
        assert await committed(harness, "catalogue") == await end_offsets(harness, "catalogue")
