"""Items in memory against a dictionary and an exhaustive search."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from interest.item import EncodedItem, Item, ItemFilter, ItemQuery
from store import item_table
from store.item_table import ItemTable
from store.matching import matches

DIM = 4
LABELS = st.sampled_from([None, "a", "b", "c"])
PRICES = st.sampled_from([None, 0.0, 1.5, 2.0, 9.0])
NUMBERS = st.integers(-3, 3).map(float)


@st.composite
def rows(draw: st.DrawFn) -> NDArray[np.float32]:
    row = np.array(draw(st.lists(NUMBERS, min_size=DIM, max_size=DIM)), np.float32)
    return row if row.any() else np.ones(DIM, np.float32)


@st.composite
def items(draw: st.DrawFn) -> EncodedItem:
    item = Item(
        item_id=draw(st.sampled_from([f"i{n}" for n in range(12)])),
        title="t",
        brand=draw(LABELS),
        domain=draw(LABELS),
        categories=tuple(draw(st.lists(st.sampled_from("abc"), max_size=3))),
        price=draw(PRICES),
        available=draw(st.booleans()),
    )
    return EncodedItem(item=item, vector=draw(rows()))


@st.composite
def queries(draw: st.DrawFn) -> ItemQuery:
    where = ItemFilter(
        category=draw(LABELS),
        brand=draw(LABELS),
        domain=draw(LABELS),
        min_price=draw(PRICES),
        max_price=draw(PRICES),
        only_available=draw(st.booleans()),
    )
    return ItemQuery(
        vectors=np.stack(draw(st.lists(rows(), min_size=1, max_size=3))),
        k=draw(st.integers(1, 8)),
        exclude=frozenset(draw(st.sets(st.sampled_from([f"i{n}" for n in range(14)])))),
        filter=where,
    )


def expected(held: dict[str, EncodedItem], query: ItemQuery) -> list[tuple[str, float]]:
    """The exhaustive answer."""

    def score(vector: NDArray[np.float32]) -> float:
        return max(float(np.float32(vector.astype(float) @ q.astype(float))) for q in query.vectors)

    scored = [
        (-score(e.vector), i)
        for i, e in held.items()
        if i not in query.exclude and matches(e.item, query.filter)
    ]
    return [(i, -negative) for negative, i in sorted(scored)[: query.k]]


#: Items that are upserted, then ids that are removed.
CHANGES = st.tuples(
    st.lists(items(), max_size=6),
    st.lists(st.sampled_from([f"i{n}" for n in range(14)]), max_size=3),
)


@pytest.fixture(autouse=True, scope="module")
def tidies_often() -> Iterator[None]:
    """Few hidden rows are enough to copy the others together."""
    patch = pytest.MonkeyPatch()
    patch.setattr(item_table, "_HIDDEN", 3)
    yield
    patch.undo()


@given(changes=st.lists(CHANGES, max_size=12), asked=st.lists(queries(), min_size=1, max_size=4))
def test_whatever_was_written_a_search_is_the_exhaustive_one(
    changes: list[tuple[list[EncodedItem], list[str]]], asked: list[ItemQuery]
) -> None:
    table, held = ItemTable(DIM), dict[str, EncodedItem]()
    for upserted, removed in changes:
        table.upsert(upserted)
        held |= {e.item.item_id: e for e in upserted}
        table.remove(removed)
        for item_id in removed:
            held.pop(item_id, None)
        found = table.search(asked[0])
        assert [(s.item.item_id, s.score) for s in found] == expected(held, asked[0])
    assert len(table) == len(held)
    for query in asked:
        found = table.search(query)
        assert [(s.item.item_id, s.score) for s in found] == expected(held, query)
        assert [s.item for s in found] == [held[s.item.item_id].item for s in found]
    for item_id in [*held, "unknown"]:
        got = table.get(item_id)
        if item_id not in held:
            assert got is None
            continue
        assert got is not None
        assert got.item == held[item_id].item
        assert got.vector.tobytes() == held[item_id].vector.tobytes()


def versions(version: int) -> Sequence[EncodedItem]:
    """Forty items; all that can be seen of one tells its version."""
    vector = np.array([1, version, 1, 0], np.float32)
    return [
        EncodedItem(
            item=Item(
                item_id=f"i{n:02}", title=str(version), price=float(version),
                categories=("a",) if version % 2 else ("a", "b"),
            ),
            vector=vector,
        )
        for n in range(40)
    ]  # fmt: skip


def test_readers_see_whole_changes_while_rows_grow_and_are_copied() -> None:
    """40 items change together, again and again: every answer is of one version, none is missing.

    One item more comes and goes between; it is excluded, so it must never be found.
    """
    table = ItemTable(DIM)
    table.upsert(versions(0))
    wrong: list[str] = []
    n_answers = [0, 0, 0]
    done = threading.Event()

    def read(reader: int) -> None:
        where = (ItemFilter(), ItemFilter(category="a"), ItemFilter(min_price=0))[reader]
        query = ItemQuery(
            vectors=np.array([[0, 1, 0, 0], [1, 0, 0, 0]], np.float32),
            k=60, filter=where, exclude=frozenset({"comes and goes"}),
        )  # fmt: skip
        last = 0
        while not done.is_set() or not n_answers[reader]:
            found = table.search(query)
            n_answers[reader] += 1
            seen = {(s.item.title, s.score) for s in found}
            version = int(found[0].item.title)
            if len(found) != 40 or len(seen) != 1 or found[0].score != max(version, 1):
                wrong.append(f"{len(found)} items: {seen}")
            if version < last:
                wrong.append(f"version {version} after {last}")
            last = version

    readers = [threading.Thread(target=read, args=(i,)) for i in range(3)]
    # Threads take turns after each few instructions, so that a step in two halves shows.
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for reader in readers:
        reader.start()
    extra = EncodedItem(
        item=Item(item_id="comes and goes", title="0"), vector=np.ones(4, np.float32)
    )
    for version in range(1, 400):
        table.upsert([extra])
        table.upsert(versions(version))
        table.remove([extra.item.item_id] if version % 3 else ["unknown"])
    done.set()
    for reader in readers:
        reader.join()
    sys.setswitchinterval(interval_s)
    assert not wrong, wrong[:3]
    assert all(n_answers)


def test_hidden_rows_are_given_back() -> None:
    """Continuous updates of the same items must not grow the memory."""
    table = ItemTable(DIM)
    for version in range(200):
        table.upsert(versions(version))
    assert len(table) == 40
    assert len(table._shown) <= 60
    table.remove([e.item.item_id for e in versions(0)])
    assert len(table) == 0
    assert table.search(ItemQuery(vectors=np.ones((1, DIM), np.float32))) == []
