"""What training reads is what the worker would have held."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.sequence_input import sequence_input
from encoder.sequence_model import SequenceModel, SequenceShape
from encoder.training.histories import Histories, Split, histories_of
from encoder.training.pieces import batches, cut, pack, windows_before_targets
from encoder.training.text_part import windows_before
from interest.encoded_items import EncodedItems
from interest.event import Event, EventType, name_of
from interest.fold import window_of
from interest.window import WindowLimits
from tests.unit.encoder.training.shop import HOUR_MS, ITEMS, Texts, event, windows_of

LIMITS = WindowLimits(max_events=5, span_ms=10 * HOUR_MS)
#: Hours between the events of each user.
GAPS = st.lists(
    st.lists(st.sampled_from([0, 0.5, 1, 4, 9, 10, 30]), max_size=16), min_size=1, max_size=4
)


def log(gaps: list[list[float]]) -> Histories:
    types = [EventType.CLICK, EventType.PURCHASE, EventType.RETURN]
    events = [
        event(
            f"u{user}", n, f"i{(user + n * n) % 12:02}", hour,
            type=types[n % 3], rating=None if n % 4 else n % 5,
        )
        for user, steps in enumerate(gaps)
        for n, hour in enumerate(np.cumsum([0, *steps]).tolist())
    ]  # fmt: skip
    return histories_of(windows_of(events), ITEMS, 2.0)


@given(GAPS)
def test_every_position_is_trained_on_once_in_a_window_of_the_limits(
    gaps: list[list[float]],
) -> None:
    held = log(gaps)
    ends = held.starts[1:]
    pieces = cut(held, ends, LIMITS)
    new = [
        place
        for first, end in zip(pieces.new.tolist(), pieces.end.tolist(), strict=True)
        for place in range(first, end)
    ]
    wanted = [p for a, b in zip(held.starts[:-1], ends, strict=True) for p in range(a, b - 1)]
    assert sorted(new) == wanted
    for first, end in zip(pieces.first.tolist(), pieces.end.tolist(), strict=True):
        assert 0 < end - first <= LIMITS.max_events
        assert held.ts[first] > held.ts[end - 1] - LIMITS.span_ms


def test_a_long_history_is_seen_by_halves() -> None:
    held = log([[0.0] * 40])
    pieces = cut(held, held.starts[1:], LIMITS)
    context = (pieces.new - pieces.first)[1:]
    assert (context >= 2).all()


@settings(deadline=None, max_examples=30)
@given(GAPS)
def test_the_output_at_a_new_first_position_is_that_of_the_workers_window(
    gaps: list[list[float]],
) -> None:
    """Where a piece begins with its window, training and serving read the same numbers."""
    held = log(gaps)
    model = SequenceModel(SequenceShape(text_dim=16, dim=32, n_taps=2)).eval()
    with torch.no_grad():
        vectors = model.items(torch.from_numpy(Texts().encode_items(held.items)))
    known = EncodedItems(held.items, vectors.numpy())
    pieces = cut(held, held.starts[1:], LIMITS)
    everything = np.ones(len(held.rows) + 1, bool)
    for batch in batches(pieces, 20, (0, 0)):
        for rows in pack(held, pieces, batch, everything):
            items, codes, segments = (
                torch.from_numpy(a) for a in (rows.items, rows.codes, rows.segments)
            )
            with torch.no_grad():
                after = model(vectors[items], codes, segments).flatten(0, 1)[rows.slots]
            for output, target in zip(after, rows.targets.tolist(), strict=True):
                user = int(np.searchsorted(held.starts, target, side="right")) - 1
                piece = np.flatnonzero((pieces.new < target) & (target <= pieces.end))
                first = int(pieces.first[piece[0]])
                all_rows = list(held.windows[user].rows())
                window = held.windows[user].with_rows(
                    all_rows[first - held.starts[user] : target - held.starts[user]]
                )
                batch_ = sequence_input([window], known, Texts(), bad_rating=-1.0)
                if not len(batch_.items):
                    continue  # it only pushes away: no direction is served
                expected = model(
                    torch.from_numpy(batch_.vectors[batch_.items])[None],
                    torch.from_numpy(batch_.codes)[None],
                )[0, -1]
                assert torch.allclose(output, expected, atol=1e-5)


@given(GAPS)
def test_validation_reads_the_windows_before_the_target(gaps: list[list[float]]) -> None:
    held = log(gaps)
    users = np.flatnonzero(np.diff(held.starts) > 1)
    split = Split(held.starts[1:] - 1, users, held.starts[1:][users] - 1)
    items, _, lengths = windows_before_targets(held, split, LIMITS)
    windows = windows_before(held, split, LIMITS)
    read = np.split(items, np.cumsum(lengths)[:-1]) if len(users) else []
    for user, window, rows in zip(users.tolist(), windows, read, strict=True):
        events = list(held.windows[user].events)
        before = [
            Event(
                event_id=name_of(e.id_hash), user_id="u", type=e.type, ts=e.ts, item_id=e.item_id
            )
            for e in events[:-1]
        ]  # fmt: skip
        expected = window_of("u", before, LIMITS)
        assert [e.item_id for e in window.events] == [e.item_id for e in expected.events]
        assert [held.items[row].item_id for row in rows] == [e.item_id for e in expected.events]


def test_batches_hold_every_piece_once_and_depend_on_the_seed_alone() -> None:
    held = log([[1.0] * 15] * 30)
    pieces = cut(held, held.starts[1:], LIMITS)
    made = list(batches(pieces, 40, (1, 2)))
    assert len(made) > 5
    assert sorted(np.concatenate(made).tolist()) == list(range(len(pieces.first)))
    sizes = [int((pieces.end - pieces.first)[batch].sum()) for batch in made]
    assert max(sizes) < 60
    again = list(batches(pieces, 40, (1, 2)))
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    assert not np.array_equal(
        np.concatenate(made), np.concatenate(list(batches(pieces, 40, (1, 3))))
    )


def test_a_log_of_single_events_has_no_piece() -> None:
    held = log([[], []])
    pieces = cut(held, held.starts[1:], LIMITS)
    assert not list(batches(pieces, 40, (0,)))
