"""The worker's counters of live quality against figures that are worked out here in plain numpy."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from interest import metrics as m
from interest.event import Event, decode_event
from interest.fold import fold
from interest.item import EncodedItem, decode_item
from interest.settings import Settings
from interest.window import BehaviourWindow
from interest_cli.replay import LoadedBundle
from interest_cli.replay_quality import QualityCounts, offline_quality
from streams.topics import ensure_topics
from streams.worker import Worker
from tests.stream.conftest import T0, Harness, event, eventually, item
from tests.stream.test_worker import publish

COLOURS = ("red", "blue", "green", "black", "white", "brass")
THINGS = ("mug", "kettle", "lamp", "garden chair", "wool scarf", "running shoe")
TITLES = {
    f"item-{i}": f"A {colour} {thing}"
    for i, (colour, thing) in enumerate(itertools.product(COLOURS, THINGS))
}
CATALOGUE = [item(item_id, title) for item_id, title in TITLES.items()]
NAMES = (m.QUALITY_EVENTS, m.QUALITY_HITS, m.QUALITY_NDCG, m.QUALITY_SKIPPED)


def log(n_users: int, n_each: int) -> list[tuple[str, bytes]]:
    """Give events in an order that mixes users; late ones, doubles, and some that are no target."""
    rng = np.random.default_rng(3)
    found = []
    for n, user in itertools.product(range(n_each), range(n_users)):
        name, item_id = f"user-{user}", f"item-{rng.integers(len(TITLES))}"
        kind = str(rng.choice(["view", "click", "cart", "purchase", "remove"]))
        ts = T0 + 1_000 * (n + int(rng.integers(-3, 3)))
        raw = event(f"{name}-{n}", name, item_id, ts=ts, type=kind)
        found += [(name, raw)] * (2 if n % 7 == 3 else 1)
    found.append(("user-0", event("stray", "user-0", "no-such-item", ts=T0 + 10**6)))
    return found


def figure(vector: NDArray[np.float32], item_id: str, items: Mapping[str, EncodedItem]) -> float:
    """Give the rank of an item among all items: the catalogue is smaller than the sample."""
    user = vector.astype(np.float64)
    scores = {i: round(float(items[i].vector.astype(np.float64) @ user), 6) for i in TITLES}
    target = scores.pop(item_id)
    return sum(s > target for s in scores.values()) + sum(s == target for s in scores.values()) / 2


def add(figures: Counter[tuple[str, str]], rank: float, label: str) -> None:
    figures[m.QUALITY_EVENTS, label] += 1
    figures[m.QUALITY_HITS, label] += rank < 10
    steps = round(2**20 / float(np.log2(rank + 2))) if rank < 10 else 0
    figures[m.QUALITY_NDCG, label] += steps / 2**20  # type: ignore[assignment]


def worked_out(
    events: list[Event], loaded: LoadedBundle, items: Mapping[str, EncodedItem]
) -> Counter[tuple[str, str]]:
    """Give what the counters must say, event by event."""
    figures: Counter[tuple[str, str]] = Counter()
    limits = loaded.bundle.config.window
    windows = defaultdict[str, BehaviourWindow](lambda: BehaviourWindow("u"))
    seen: set[str] = set()
    for one in events:
        window = windows[one.user_id]
        windows[one.user_id] = fold(window, [one], limits)
        if one.type == "remove" or one.event_id in seen:
            continue
        seen.add(one.event_id)
        assert one.item_id is not None
        if not len(window):
            figures[m.QUALITY_SKIPPED, "cold"] += 1
        elif one.item_id not in items:
            figures[m.QUALITY_SKIPPED, "unknown_item"] += 1
        else:
            vector = loaded.user_encoder.encode([window], items)[0]
            if not vector.any():
                figures[m.QUALITY_SKIPPED, "cold"] += 1
                continue
            label = "repeated" if one.item_id in window.item_ids else "new"
            add(figures, figure(vector, one.item_id, items), label)
    return figures


def counted(metrics: QualityCounts) -> dict[tuple[str, str], float]:
    return {key: n for key, n in metrics.counted.items() if key[0] in NAMES and n}


async def all_scored(harness: Harness, worker: Worker) -> None:
    async def done() -> bool:
        return not worker.parts.quality.pending

    await harness.idle(worker)
    await eventually(done)


async def test_the_live_counters_equal_the_offline_figure_exactly(
    harness: Harness, loaded: LoadedBundle
) -> None:
    harness.change(live_quality_load=1.0)
    await ensure_topics(harness.settings)
    records = log(n_users=12, n_each=20)
    await publish(harness, "catalogue", *zip(TITLES, CATALOGUE, strict=True))
    metrics = QualityCounts()
    async with harness.worker(metrics) as worker:
        await harness.idle(worker)
        # Faster than vectors are made, so that events of a user share an encode.
        await publish(harness, "behaviours", *records)
        await all_scored(harness, worker)
        items = await worker.ports.items.fetch(list(TITLES))
    events = [decode_event(raw) for _, raw in records]
    live = counted(metrics)
    assert live == {key: n for key, n in worked_out(events, loaded, items).items() if n}
    assert {label for _, label in live} == {"new", "repeated", "cold", "unknown_item"}
    replayed = offline_quality(events, map(decode_item, CATALOGUE), loaded, harness.settings)
    assert live == counted(replayed)


async def test_fed_event_by_event_it_is_the_rank_by_the_vector_in_redis(harness: Harness) -> None:
    harness.change(live_quality_load=1.0)
    await ensure_topics(harness.settings)
    await publish(harness, "catalogue", *zip(TITLES, CATALOGUE, strict=True))
    metrics, figures = QualityCounts(), Counter[tuple[str, str]]()
    async with harness.worker(metrics) as worker:
        await harness.idle(worker)
        items = await worker.ports.items.fetch(list(TITLES))
        for n, item_id in enumerate(list(TITLES)[::5]):
            before = await harness.user("u")
            await publish(
                harness, "behaviours", ("u", event(f"e{n}", "u", item_id, ts=T0 + 1_000 * n))
            )
            await all_scored(harness, worker)
            if before is None:
                figures[m.QUALITY_SKIPPED, "cold"] += 1
            else:
                add(figures, figure(before.vector.vectors[0], item_id, items), "new")
    assert counted(metrics) == {key: n for key, n in figures.items() if n}
    assert figures[m.QUALITY_EVENTS, "new"] == 7


@pytest.mark.parametrize("share", [0.0, 0.5])
async def test_the_share_chooses_the_users_who_are_scored(
    harness: Harness, loaded: LoadedBundle, share: float
) -> None:
    harness.change(live_quality_load=1.0, live_quality_share=share)
    await ensure_topics(harness.settings)
    records = log(n_users=6, n_each=4)
    await publish(harness, "catalogue", *zip(TITLES, CATALOGUE, strict=True))
    metrics = QualityCounts()
    async with harness.worker(metrics) as worker:
        await harness.idle(worker)
        await publish(harness, "behaviours", *records)
        await all_scored(harness, worker)
    events = [decode_event(raw) for _, raw in records]
    replayed = offline_quality(
        events, map(decode_item, CATALOGUE), loaded, Settings(live_quality_share=share)
    )
    assert counted(metrics) == counted(replayed)
    assert bool(counted(metrics)) == bool(share)
