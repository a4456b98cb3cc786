"""The pytest plugin, as another project sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from interest.errors import InvalidEvent
from interest.event import Event, EventType
from interest_cli.pytest_plugin import Replay, interest_replay

ROOT = Path(__file__).parents[3]

# The fixture is imported, so that this file also runs where the plugin is not installed.
__all__ = ["interest_replay"]


def test_events_and_items_may_be_mappings_or_objects(interest_replay: Replay) -> None:
    click = Event(event_id="1", user_id="a/b", type=EventType.CLICK, ts=10**12, item_id="x")
    users = interest_replay(
        events=[click, {"event_id": "2", "user_id": "ü", "type": "view", "ts": 10**12,
                        "item_id": "x"}],
        items=[{"item_id": "x", "title": "A kettle"}],
    )  # fmt: skip
    assert set(users) == {"a/b", "ü"}
    assert not users["ü"].is_cold


def test_an_event_that_breaks_the_contract_fails_the_test_that_sent_it(
    interest_replay: Replay,
) -> None:
    with pytest.raises(InvalidEvent, match="missing_item"):
        interest_replay(
            events=[{"event_id": "1", "user_id": "u", "type": "view", "ts": 10**12}], items=[]
        )


def test_loading_the_plugin_imports_nothing_else_of_ours(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import sys\n"
        "def test_start_is_not_slowed_down():\n"
        "    heavy = {'interest', 'msgspec', 'numpy', 'torch', 'pyarrow', 'pydantic'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    # Other plugins of this environment import what they like.
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "interest_cli.pytest_plugin", str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout
