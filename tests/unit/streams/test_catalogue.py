"""The catalogue agent while its item store is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from interest.errors import ServiceUnavailable
from interest.item import EncodedItem, Item
from interest.metrics import NoMetrics
from interest.settings import Settings
from streams.catalogue import Catalogue
from streams.progress import Progress
from streams.topics import TopicNames
from tests.unit.streams.fakes import T0, KafkaRecord, Outbox, chunk


class Encoder:
    dim = 2

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        return np.tile(np.array([1, 0], np.float32), (len(items), 1))


class Store:
    shared = True

    def __init__(self) -> None:
        self.sick = asyncio.Event()
        self.well = False

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        if not self.well:
            self.sick.set()
            raise ServiceUnavailable("Qdrant is away")

    async def remove(self, item_ids: Sequence[str]) -> None: ...


async def test_a_store_that_is_away_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.catalogue.backoff_s", lambda attempt: 0)
    names, store, outbox, progress = TopicNames.of(Settings()), Store(), Outbox(), Progress()
    progress.start(1)
    catalogue = Catalogue(
        names=names, model_id="m", encoder=Encoder(), store=store, progress=progress,  # type: ignore[arg-type]
        outbox=outbox, executor=ThreadPoolExecutor(1), clock=lambda: T0, metrics=NoMetrics(),  # type: ignore[arg-type]
    )  # fmt: skip
    value = json.dumps({"item_id": "i", "title": "Mug"}).encode()
    record = KafkaRecord(names.catalogue, 0, 0, b"i", value)
    handling = asyncio.create_task(catalogue.handle(chunk([record])))
    await asyncio.wait_for(store.sick.wait(), 5)
    assert catalogue.away == "Qdrant is away"
    assert outbox.sent == []
    store.well = True
    await asyncio.wait_for(handling, 5)
    assert catalogue.away == ""
    assert [sent.topic for sent in outbox.sent] == [names.items_encoded]
