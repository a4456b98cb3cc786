"""A pytest plugin for other people's tests: ``interest_replay`` turns events into vectors.

    def test_a_click_moves_the_vector(interest_replay):
        users = interest_replay(
            events=[{"event_id": "1", "user_id": "u", "type": "click", "ts": 1700000000000,
                     "item_id": "kettle"}],
            items=[{"item_id": "kettle", "title": "A red kettle"}],
        )
        assert len(users["u"].window.events) == 1

pytest loads this module at every start, also where nobody uses it: it imports nothing of ours
until a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from interest.event import Event
    from interest.item import Item
    from interest_cli.replay import LoadedBundle, ReplayedUser


class Replay(Protocol):
    """What the fixture ``interest_replay`` gives."""

    def __call__(
        self,
        events: Iterable[Event | Mapping[str, Any]],
        items: Iterable[Item | Mapping[str, Any]],
    ) -> dict[str, ReplayedUser]:
        """Replay a log; users by id.

        Args:
            events: events, or mappings with the fields of the contract.
            items: items, or mappings with the fields of the contract.

        Raises:
            InvalidEvent: an event breaks the contract.
            InvalidItem: an item breaks the contract.
        """


@pytest.fixture(scope="session")
def interest_bundle() -> LoadedBundle:
    """The model bundle of the settings (environment and ``.env``), loaded once a session.

    Override this fixture to replay with other encoders.
    """
    from interest_cli.bundles import load_bundle
    from interest_cli.env import load_settings

    return load_bundle(load_settings(warn=lambda line: None))


@pytest.fixture
def interest_replay(interest_bundle: LoadedBundle) -> Replay:
    """Replay events and items offline, with the fold and the encoders of the live path."""
    import msgspec

    from interest.event import Event, decode_event
    from interest.item import Item, decode_item
    from interest_cli.replay import replay

    def run(
        events: Iterable[Event | Mapping[str, Any]],
        items: Iterable[Item | Mapping[str, Any]],
    ) -> dict[str, ReplayedUser]:
        log = (
            event if isinstance(event, Event) else decode_event(msgspec.json.encode(event))
            for event in events
        )
        catalogue = (
            item if isinstance(item, Item) else decode_item(msgspec.json.encode(item))
            for item in items
        )
        return {user.user_id: user for user in replay(log, catalogue, interest_bundle)}

    return run
