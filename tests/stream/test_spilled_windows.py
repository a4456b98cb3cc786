"""A worker that keeps most windows on disk does what one does that keeps all in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams import worker_parts
from streams.topics import ensure_topics
from streams.worker import Worker
from tests.stream.conftest import Harness
from tests.stream.probes import publish_round, seen, settled
from tests.stream.test_worker import USERS


def contents(worker: Worker) -> dict[str, bytes]:
    return {
        subject_id: held.window.content()
        for partition in worker.windows.partitions.values()
        for subject_id, held in partition.each()
    }


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_windows_on_disk_are_folded_recovered_and_encoded(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_parts, "LEAST_IN_MEMORY", 1)
    harness.change(window_store="rocksdb", windows_in_memory=1, window_folder=str(tmp_path))
    await ensure_topics(harness.settings)
    for round_ in range(3):
        await publish_round(harness, round_)
    async with harness.worker() as worker:
        await settled(harness, worker)
        held = [partition.held for partition in worker.windows.partitions.values()]
        assert sum(len(windows) for windows in held) == len(USERS)
        assert any(len(windows) > 1 for windows in held)
        assert all(len(windows.in_memory()) <= 1 for windows in held)
    for round_ in range(3, 5):
        await publish_round(harness, round_)
    async with harness.worker() as worker:
        await settled(harness, worker)
        on_disk = contents(worker)
    assert left_in(tmp_path) == []
    await seen(harness, 5)
    harness.change(window_store="memory")
    async with harness.worker() as worker:
        await settled(harness, worker)
        assert contents(worker) == on_disk
    assert on_disk.keys() == set(USERS)
