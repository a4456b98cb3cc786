"""The demo, as a newcomer runs it."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import interest, processes_of, running


def rows(path: Path) -> dict[str, Any]:
    return {row["user_id"]: row for row in pq.read_table(path).to_pylist()}


def assert_same(live: dict[str, Any], offline: dict[str, Any]) -> None:
    """Windows equal to the byte, vectors to the rounding of batches, for every user."""
    assert live.keys() == offline.keys()
    for user_id, expected in offline.items():
        got = live[user_id]
        assert got["window"] == expected["window"], user_id
        assert got["model_id"] == expected["model_id"]
        assert got["n_interests"] == expected["n_interests"], user_id
        if expected["n_interests"]:
            assert float(np.dot(got["vector"], expected["vector"])) >= 0.9999, user_id


def test_the_demo_leaves_the_vectors_of_an_offline_replay_and_nothing_else(
    tmp_path: Path, fitted: Path, offline: Path
) -> None:
    export = tmp_path / "live.parquet"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = interest(
        "demo",
        "--once",
        "--port",
        0,
        "--export",
        export,
        cwd=tmp_path,
        env={"TMPDIR": str(scratch), "INTEREST_BUNDLE": str(fitted)},
    )
    assert done.returncode == 0, done.stderr
    assert "600 users, 600 records" in done.stdout
    assert "0 dead letters" in done.stdout
    assert re.search(r"[0-9.]+ s in all", done.stdout)
    assert done.stdout.count("last behaviours of user") == 3
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == []
    assert_same(rows(export), rows(offline))


def test_the_demo_serves_until_ctrl_c_and_then_leaves_nothing(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with running("demo", "--port", 0, cwd=tmp_path, env={"TMPDIR": str(scratch)}) as demo:
        demo.says("until Ctrl-C")
        found = re.search(r"serving (http://\S+)/docs", demo.output)
        assert found is not None
        user = re.search(r"last behaviours of user (\S+)", demo.output)
        assert user is not None
        with httpx.Client(base_url=found[1], timeout=10) as api:
            assert api.get("/readyz").status_code == 200
            vector = api.get(f"/v1/users/{user[1]}/vector").json()
            assert len(vector["vectors"][0]) == vector["dim"]
            everything = api.get(
                f"/v1/users/{user[1]}/recommendations", params={"k": 500, "exclude_seen": False}
            ).json()
            unseen = api.get(f"/v1/users/{user[1]}/recommendations", params={"k": 500}).json()
            assert unseen["basis"] == "vector"
            gone = {i["item_id"] for i in everything["items"]} - {
                i["item_id"] for i in unseen["items"]
            }
            assert gone, "what the user has bought is left out"
            newcomer = api.get("/v1/users/nobody/recommendations").json()
            assert newcomer["basis"] == "popular"
            assert len(newcomer["items"]) == 10
            similar = api.get(f"/v1/items/{unseen['items'][0]['item_id']}/similar").json()
            assert len(similar["items"]) == 10
            assert "interest_vectors_upserted_total" in api.get("/metrics").text
        assert demo.stop(signal.SIGINT) == 128 + signal.SIGINT
    assert "Traceback" not in demo.output
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_ended_at_its_start_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    from tests.e2e.conftest import until

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with running("demo", "--port", 0, cwd=tmp_path, env={"TMPDIR": str(scratch)}) as demo:
        until(lambda: bool(list(scratch.iterdir())), "the servers start")
        demo.stop(number)
    until(lambda: not list(scratch.iterdir()), "the folder is removed")
    until(lambda: not processes_of(scratch), "the servers end")
    assert "Traceback" not in demo.output
