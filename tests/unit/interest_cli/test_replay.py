"""The offline replay."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from interest.bundle import ModelBundle
from interest.errors import BadInput
from interest.event import Event, EventType
from interest.item import Item
from interest.ports import ItemEncoder, UserEncoder
from interest_cli.replay import LoadedBundle, ReplayedUser, replay, write_parquet

T0 = 1_700_000_000_000


def event(user: str, number: int, item: str, kind: EventType = EventType.VIEW) -> Event:
    return Event(
        event_id=f"{user}-{number}", user_id=user, type=kind, ts=T0 + number,
        item_id=item,
    )  # fmt: skip


def item(name: str, title: str = "") -> Item:
    return Item(item_id=name, title=title or f"title of {name}")


LOG = [event(f"user{u}", n, f"item{(u * 3 + n) % 11}") for u in range(20) for n in range(6)]
CATALOGUE = [item(f"item{n}") for n in range(11)]


def test_every_user_of_the_log_comes_back_with_window_and_vector(
    interest_bundle: LoadedBundle,
) -> None:
    users = list(replay(LOG, CATALOGUE, interest_bundle))
    assert [user.user_id for user in users] == sorted({event.user_id for event in LOG})
    for user in users:
        assert [event.ts - T0 for event in user.window.events] == [2, 3, 4, 5]
        assert user.vectors.shape == (1, interest_bundle.bundle.dim)
        assert user.vectors.dtype == np.float32


def test_order_and_duplicates_of_the_log_do_not_matter(
    interest_bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(replay(LOG, CATALOGUE, interest_bundle))
    monkeypatch.setattr("interest_cli.replay._EVENTS_PER_FOLD", 7)
    shuffled = LOG * 2
    random.Random(1).shuffle(shuffled)
    for was, now in zip(expected, replay(shuffled, CATALOGUE, interest_bundle), strict=True):
        assert now.window.content() == was.window.content()
        assert np.array_equal(now.vectors, was.vectors)


def test_a_user_without_a_direction_has_no_row_and_one_without_a_behaviour_is_left_out(
    interest_bundle: LoadedBundle,
) -> None:
    log = [event("cold", 1, "unheard-of"), event("shown", 1, "item1", EventType.IMPRESSION)]
    (user,) = replay(log, CATALOGUE, interest_bundle)
    assert user.user_id == "cold"
    assert user.is_cold
    assert user.vectors.shape == (0, interest_bundle.bundle.dim)


class Spies:
    """A bundle whose encoders remember what they were asked."""

    def __init__(self, loaded: LoadedBundle) -> None:
        self.items: ItemEncoder = type(loaded.item_encoder)()
        self.users: UserEncoder = type(loaded.user_encoder)()
        bundle: ModelBundle = loaded.bundle
        self.loaded = LoadedBundle(bundle, self.items, self.users)


def test_only_items_that_a_window_holds_are_encoded_and_the_last_of_an_id_counts(
    interest_bundle: LoadedBundle,
) -> None:
    spies = Spies(interest_bundle)
    catalogue = [item("a", "old"), item("b"), item("a", "new")]
    (user,) = replay([event("u", 1, "a")], catalogue, spies.loaded)
    assert vars(spies.items)["asked"] == ["a"]
    assert np.allclose(user.vectors, spies.items.encode_texts(["new"]))


def test_micro_batches_are_cut_by_tokens_and_hold_at_least_one_user(
    interest_bundle: LoadedBundle,
) -> None:
    spies = Spies(interest_bundle)
    log = [event(user, n, "item1") for user, many in zip("abcd", (1, 2, 4, 1), strict=True)
           for n in range(many)]  # fmt: skip
    list(replay(log, CATALOGUE, spies.loaded, batch_tokens=3))
    assert vars(spies.users)["batches"] == [["a", "b"], ["c"], ["d"]]


def test_progress_reaches_the_end_of_items_and_users(interest_bundle: LoadedBundle) -> None:
    seen: list[tuple[str, int, int]] = []
    list(replay(LOG, CATALOGUE, interest_bundle, progress=lambda *told: seen.append(told)))
    assert ("items", 11, 11) in seen
    assert seen[-1] == ("users", 20, 20)


def test_vectors_are_written_to_parquet_with_window_and_times(
    tmp_path: Path, interest_bundle: LoadedBundle
) -> None:
    users = list(replay([*LOG, event("cold", 3, "?")], CATALOGUE, interest_bundle))
    path = tmp_path / "vectors.parquet"
    assert write_parquet(path, users, "model") == 21
    rows = pq.read_table(path).to_pylist()
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.parquet"]
    cold, warm = rows[0], rows[1]
    assert cold == {
        "user_id": "cold", "model_id": "model", "vector": [], "n_interests": 0,
        "event_time_ms": T0 + 3, "n_events": 1, "window": users[0].window.content(),
    }  # fmt: skip
    assert np.array_equal(np.float32(warm["vector"]), users[1].vectors[0])
    assert (warm["n_interests"], warm["n_events"], warm["event_time_ms"]) == (1, 4, T0 + 5)


def test_a_failure_while_writing_leaves_no_file(
    tmp_path: Path, interest_bundle: LoadedBundle
) -> None:
    def breaks() -> object:
        yield from replay(LOG[:1], CATALOGUE, interest_bundle)
        raise RuntimeError("the device failed")

    users: list[ReplayedUser] = breaks()  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        write_parquet(tmp_path / "vectors.parquet", users, "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot write .*nowhere"):
        write_parquet(tmp_path / "nowhere" / "vectors.parquet", [], "model")
