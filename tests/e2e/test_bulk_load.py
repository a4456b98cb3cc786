"""A catalogue is loaded, and whatever is killed on the way, nothing is lost or encoded twice."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import signal
import subprocess
import uuid
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from tests.conftest import Servers
from tests.e2e.conftest import INTEREST, ITEMS, Running, environment, interest, running, until

LINES = gzip.decompress(ITEMS.read_bytes()).splitlines(keepends=True)
#: Of these a worker encodes four slices: one before it is killed.
N_ENCODED = 1_000


@pytest.fixture
def settings(servers: Servers) -> dict[str, str]:
    name = uuid.uuid4().hex[:8]
    return {
        "INTEREST_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
        "INTEREST_REDIS_URL": servers.redis_url,
        "INTEREST_REDIS_PREFIX": f"{name}:",
        "INTEREST_TOPIC_PREFIX": f"{name}-",
        "INTEREST_GROUP_ID": name,
        "INTEREST_PARTITIONS": "4",
        "INTEREST_SESSION_TIMEOUT_S": "6",
        "INTEREST_FETCH_MAX_WAIT_MS": "20",
        "INTEREST_CHECKPOINT_MAX_S": "2",
        "INTEREST_WORKER_PORT": "0",
    }


def keys(settings: dict[str, str], topic: str) -> list[bytes]:
    """Read the keys of a topic to its present end; none where it is not there yet."""

    async def read() -> list[bytes]:
        consumer = AIOKafkaConsumer(
            settings["INTEREST_TOPIC_PREFIX"] + topic,
            bootstrap_servers=settings["INTEREST_KAFKA_BOOTSTRAP"],
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
        )
        await consumer.start()
        try:
            found: list[bytes] = []
            for tp, end in (await consumer.end_offsets(consumer.assignment())).items():
                while await consumer.position(tp) < end:
                    fetched = await consumer.getmany(tp, timeout_ms=1000)
                    found += [record.key for record in fetched.get(tp, [])]
            return found
        finally:
            await consumer.stop()

    return asyncio.run(read())


def metric(worker: Running, name: str) -> int:
    found = re.search(r"(http://\S+)/metrics", worker.output)
    assert found is not None
    value = re.search(rf"^{name} (\S+)$", httpx.get(f"{found[1]}/metrics").text, re.M)
    assert value is not None
    return int(float(value[1]))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_load_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, settings: dict[str, str], how: signal.Signals
) -> None:
    created = interest("topics", "create", cwd=tmp_path, env=settings)
    assert created.returncode == 0, created.stderr
    said = tmp_path / "said.log"
    with (
        said.open("wb") as log,
        subprocess.Popen(
            [INTEREST, "catalogue", "load", "-"],
            cwd=tmp_path, env=environment(settings), stdin=subprocess.PIPE, stderr=log,
        ) as loading,
    ):  # fmt: skip
        assert loading.stdin is not None
        try:
            loading.stdin.write(b"".join(LINES[:1_500]))
            loading.stdin.flush()
            # A first batch of a thousand is sent; the rest waits for more of the file.
            until(lambda: len(set(keys(settings, "catalogue"))) == 1_000, "the first batch")
            loading.send_signal(how)
            loading.stdin.close()
            code = loading.wait(60)
        finally:
            loading.kill()
    if how == signal.SIGINT:
        assert code == 128 + how
        assert "run the same command again" in said.read_text()
    n_before = len(keys(settings, "catalogue"))
    again = interest("catalogue", "load", ITEMS, cwd=tmp_path, env=settings)
    assert f"{2460 - n_before} items published, {n_before} unchanged" in again.stdout, again.stderr
    found = keys(settings, "catalogue")
    assert len(found) == len(set(found)) == 2460


def test_a_worker_that_is_killed_encodes_nothing_twice_and_leaves_nothing_out(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    items = tmp_path / "items.jsonl"
    items.write_bytes(b"".join(LINES[:N_ENCODED]))
    loaded = interest("catalogue", "load", items, cwd=tmp_path, env=settings)
    assert f"{N_ENCODED} items published, 0 unchanged" in loaded.stdout, loaded.stderr
    with running("worker", cwd=tmp_path, env=settings) as worker:
        until(lambda: len(keys(settings, "items-encoded")) > 0, "a first slice", 120)
        worker.stop(signal.SIGKILL)
    n_done = len(set(keys(settings, "items-encoded")))
    assert 0 < n_done < N_ENCODED, "it was killed in the middle"
    with running("worker", cwd=tmp_path, env=settings) as worker:
        waited = interest("catalogue", "load", items, "--wait", cwd=tmp_path, env=settings)
        assert f"0 items published, {N_ENCODED} unchanged" in waited.stdout, waited.stderr
        assert "all items are encoded" in waited.stdout, waited.stderr
        assert metric(worker, "interest_items_encoded_total") == N_ENCODED - n_done
        assert len(set(keys(settings, "items-encoded"))) == N_ENCODED

        # A new price for all: published and announced, and nothing is encoded.
        dearer = tmp_path / "dearer.jsonl"
        dearer.write_text(
            "".join(
                json.dumps({**json.loads(line), "price": 9.5}) + "\n" for line in LINES[:N_ENCODED]
            )
        )
        unchanged = metric(worker, "interest_items_unchanged_total")
        again = interest("catalogue", "load", dearer, "--wait", cwd=tmp_path, env=settings)
        assert f"{N_ENCODED} items published, 0 unchanged" in again.stdout, again.stderr
        assert metric(worker, "interest_items_encoded_total") == N_ENCODED - n_done
        assert metric(worker, "interest_items_unchanged_total") == unchanged + N_ENCODED
        assert worker.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert "Traceback" not in worker.output


def test_bad_lines_are_named_and_the_rest_goes_on(tmp_path: Path, settings: dict[str, str]) -> None:
    bad = {3: b"{broken\n", 7: b'{"item_id":"x"}\n', 8: b'{"item_id":"x","title":"y","price":-1}\n'}
    lines = [bad.get(n, line) for n, line in enumerate(LINES[:300], start=1)]
    items = tmp_path / "items.jsonl"
    items.write_bytes(b"".join(lines) + b"nonsense\n" * 30)
    rejects = tmp_path / "rejects.jsonl"
    done = interest("catalogue", "load", items, "--rejects", rejects, cwd=tmp_path, env=settings)
    assert done.returncode == 0, done.stderr
    assert "297 items published, 0 unchanged, 33 invalid lines left out, see" in done.stdout
    for line, reason in ((3, "malformed_json"), (7, "missing_title"), (8, "schema")):
        assert f"items.jsonl:{line}: {reason}" in done.stderr
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [t["line"] for t in told] == [3, 7, 8, *range(301, 331)]
    assert told[0] | {"detail": ""} == {
        "line": 3, "reason": "malformed_json", "detail": "", "record": "{broken",
    }  # fmt: skip
    assert len(keys(settings, "catalogue")) == 297


def test_a_file_of_another_kind_is_given_up_early(tmp_path: Path, settings: dict[str, str]) -> None:
    items = tmp_path / "shop.csv"
    items.write_text("InvoiceNo,StockCode\n" * 500)
    done = interest("catalogue", "load", items, cwd=tmp_path, env=settings)
    assert done.returncode == 2
    assert "the first 100 lines are no items" in done.stderr
