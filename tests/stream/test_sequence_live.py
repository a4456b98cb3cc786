"""The sequence encoder behind a running worker: the same vectors as an offline replay."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest

from interest.event import decode_event
from interest.item import decode_item
from interest.settings import Settings
from interest_cli.bundles import load_bundle
from interest_cli.replay import LoadedBundle, replay
from streams.topics import ensure_topics
from tests.conftest import Servers
from tests.stream.conftest import T0, Harness, event, item
from tests.stream.test_worker import publish

TITLES = {"mug": "A red mug", "cup": "A blue cup", "lamp": "A brass lamp"}
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def sequence() -> LoadedBundle:
    return load_bundle(Settings(user_encoder="sequence", item_cache_half=True))


@pytest.fixture
async def harness(servers: Servers, sequence: LoadedBundle) -> AsyncIterator[Harness]:
    made = Harness(servers, sequence)
    made.change(user_encoder="sequence", item_cache_half=True)
    yield made
    await made.vectors.close()


async def test_a_worker_with_the_sequence_encoder_leaves_the_vectors_of_a_replay(
    harness: Harness, sequence: LoadedBundle
) -> None:
    await ensure_topics(harness.settings)
    rng = np.random.default_rng(0)
    log = [
        (user, event(f"{user}-{i}", user, str(rng.choice(list(TITLES))), ts=T0 + i * MINUTE_MS))
        for user, n in (("short", 1), ("long", 60), ("usual", 9))
        for i in range(n)
    ]
    search = {"event_id": "s", "user_id": "seeker", "type": "search", "text": "red mug", "ts": T0}
    log.append(("seeker", msgspec.json.encode(search)))
    log.append(("returner", event("r", "returner", type="return")))
    catalogue = [item(item_id, title) for item_id, title in TITLES.items()]
    await publish(harness, "catalogue", *zip(TITLES, catalogue, strict=True))
    await publish(harness, "behaviours", *log)
    events = [decode_event(raw) for _, raw in log]
    expected = {
        user.user_id: user for user in replay(events, map(decode_item, catalogue), sequence)
    }
    async with harness.worker() as worker:
        await harness.idle(worker)
        for user_id, user in expected.items():
            vector = (await harness.user(user_id)).vector
            assert vector.n_events == len(user.window)
            assert vector.vectors.shape == user.vectors.shape
            assert (np.sum(vector.vectors * user.vectors, axis=1) >= 0.9999).all(), user_id
    assert expected["returner"].is_cold
    assert expected["long"].vectors.shape == (1, 64)
