"""Rows without padding, and the two ways to run a model on them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.sequence_cuda import StagedSequence
from encoder.sequence_model import N_CODES, SequenceModel
from encoder.sequence_packed import PackedSequence
from encoder.sequence_rows import Ints, lay_out
from tests.unit.encoder.test_sequence_model import DIM, lively

#: Few lengths make patterns that repeat; 70 is beyond the usual window.
LENGTHS = st.lists(st.one_of(st.integers(0, 50), st.sampled_from([1, 5, 16, 17, 33, 70])))
MODEL = lively()
RUNNERS = [PackedSequence(MODEL), StagedSequence(MODEL, torch.device("cpu"))]


class Batch(NamedTuple):
    vectors: NDArray[np.float32]
    items: Ints
    codes: Ints
    lengths: Ints


def batch_of(lengths: list[int], seed: int = 0) -> Batch:
    """Window i of a length is the same in every batch of one seed that holds it at place i."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(40, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items, codes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for length in lengths:
        own = np.random.default_rng(seed + 100 * length)
        items.append(own.integers(0, 40, length))
        codes.append(own.integers(0, N_CODES, length))
    return Batch(vectors, np.concatenate(items), np.concatenate(codes), np.array(lengths, np.int64))


def reference(model: SequenceModel, batch: Batch) -> NDArray[np.float32]:
    """One window at a time, as in training."""
    out = np.zeros((len(batch.lengths), DIM), np.float32)
    first = 0
    for i, length in enumerate(batch.lengths.tolist()):
        if length:
            places = slice(first, first + length)
            vectors = torch.from_numpy(batch.vectors[batch.items[places]])[None]
            out[i] = model(vectors, torch.from_numpy(batch.codes[places])[None])[0, -1].numpy()
        first += length
    return out


@given(LENGTHS)
def test_every_event_has_one_slot_and_no_window_crosses_a_row(lengths: list[int]) -> None:
    held = np.array(lengths, np.int64)
    firsts = np.cumsum(held) - held
    events: list[int] = []
    windows: list[int] = []
    for rows in lay_out(held):
        windows += rows.windows.tolist()
        assert np.array_equal(rows.ends - rows.starts + 1, held[rows.windows])
        assert np.array_equal(rows.starts // rows.width, rows.ends // rows.width)
        assert (rows.starts[1:] > rows.ends[:-1]).all()
        for chunk in rows.chunks(128):
            found, slots, places = chunk.slots(firsts)
            events += found.tolist()
            assert len(set(slots.tolist())) == len(slots)
            assert slots.max(initial=0) < chunk.n_rows * chunk.width
            key = slots // chunk.width * 1000 + places
            assert len(set(key.tolist())) == len(chunk.windows), "windows of a row differ"
    assert sorted(events) == list(range(int(held.sum())))
    assert sorted(windows) == np.flatnonzero(held).tolist()


@pytest.mark.parametrize("mean", [2, 9, 30])
def test_hardly_a_slot_is_empty_in_a_full_batch(mean: int) -> None:
    lengths = np.random.default_rng(0).geometric(1 / mean, 2000).clip(1, 50)
    n_slots = sum(rows.n_rows * rows.width for rows in lay_out(lengths))
    assert n_slots <= 1.25 * lengths.sum()


@pytest.mark.parametrize("runner", RUNNERS)
@settings(max_examples=30, deadline=None)
@given(LENGTHS)
def test_a_window_gives_one_vector_whatever_the_batch(
    runner: PackedSequence | StagedSequence, lengths: list[int]
) -> None:
    batch = batch_of(lengths)
    encoded = runner.encode(*batch)
    expected = reference(MODEL, batch)
    assert np.allclose(encoded, expected, atol=2e-6)
    empty = batch.lengths == 0
    cosines = (encoded * expected).sum(1)[~empty]
    assert (cosines >= 0.9999).all()
    assert not encoded[empty].any()


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_batch_of_many_pieces_is_put_together_in_order(
    runner: PackedSequence | StagedSequence,
) -> None:
    lengths = np.random.default_rng(1).integers(0, 51, 2500)
    batch = batch_of(lengths.tolist())
    encoded = runner.encode(*batch)
    some = np.random.default_rng(2).choice(len(lengths), 20, replace=False)
    for i in some.tolist():
        alone = batch_of([int(lengths[i])])
        assert np.allclose(encoded[i], runner.encode(*alone)[0], atol=2e-6)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_any_number_of_layers_runs(n_layers: int) -> None:
    model = lively(n_layers=n_layers)
    batch = batch_of([3, 50, 1, 20])
    assert np.allclose(PackedSequence(model).encode(*batch), reference(model, batch), atol=2e-6)
