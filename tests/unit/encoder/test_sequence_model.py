from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from encoder.sequence_model import N_CODES, SequenceModel, SequenceShape, filtered
from interest.event import EventType

DIM = 32


def lively(
    n_items: int = 0, dim: int = DIM, n_layers: int = 2, text_dim: int = 8, n_taps: int = 3
) -> SequenceModel:
    """A model in which every part matters: weights as large as after training."""
    model = SequenceModel(
        SequenceShape(
            text_dim=text_dim, dim=dim, n_layers=n_layers, head_dim=16, n_items=n_items,
            n_taps=n_taps,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5, generator=generator)
            elif name != "item_scale":
                weight.normal_(0, 0.3, generator=generator)
    return model.requires_grad_(False).eval()


def a_batch(n: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(
        torch.randn(n, length, DIM, generator=generator), dim=-1
    )
    return vectors, torch.randint(N_CODES, (n, length), generator=generator)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("changed", [1, 7, 49])
def test_what_happens_later_changes_no_output_before_it(changed: int, n_layers: int) -> None:
    model = lively(n_layers=n_layers)
    vectors, codes = a_batch(3, 50)
    other_vectors, other_codes = a_batch(3, 50, seed=1)
    before = model(vectors, codes)
    for part in (vectors, other_vectors), (codes, other_codes):
        part[0][:, changed] = part[1][:, changed]
    after = model(vectors, codes)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.isclose(before[:, changed:], after[:, changed:]).all(-1).any()


@pytest.mark.parametrize("what", ["item", "code"])
def test_each_event_before_counts(what: str) -> None:
    model = lively()
    vectors, codes = a_batch(1, 50)
    last = model(vectors, codes)[:, -1]
    for place in range(50):
        other = vectors.clone(), codes.clone()
        if what == "item":
            other[0][:, place] = other[0][:, (place + 1) % 50]
        else:
            other[1][:, place] = (codes[:, place] + 1) % N_CODES
        assert not torch.allclose(model(*other)[:, -1], last, atol=1e-6), place


def test_places_count_back_from_the_query_so_a_window_may_begin_anywhere() -> None:
    """Ten equal events: the output after the third is the same wherever the three begin."""
    model = lively()
    vectors, codes = a_batch(1, 1)
    long = model(vectors.expand(1, 13, DIM), codes.expand(1, 13))
    short = model(vectors.expand(1, 10, DIM), codes.expand(1, 10))
    assert torch.allclose(long[:, :10], short, atol=1e-6)
    vectors, codes = a_batch(1, 2)
    order = [0, 0, 1, 0]
    swapped = [0, 1, 0, 0]
    assert not torch.allclose(
        model(vectors[:, order], codes[:, order])[:, -1],
        model(vectors[:, swapped], codes[:, swapped])[:, -1],
        atol=1e-4,
    ), "the order matters"


def test_windows_in_one_row_do_not_see_each_other() -> None:
    model = lively()
    vectors, codes = a_batch(1, 20)
    segments = torch.tensor([[0] * 6 + [1] * 14])
    joined = model(vectors, codes, segments)
    assert torch.allclose(joined[:, :6], model(vectors[:, :6], codes[:, :6]), atol=1e-6)
    assert torch.allclose(joined[:, 6:], model(vectors[:, 6:], codes[:, 6:]), atol=1e-6)


def test_a_filter_of_one_tap_at_its_start_changes_nothing() -> None:
    vectors, codes = a_batch(2, 9)
    without, with_taps = (SequenceModel(SequenceShape(8, DIM, n_taps=n)) for n in (0, 3))
    assert torch.equal(without(vectors, codes), with_taps(vectors, codes))


def test_the_filter_is_a_causal_convolution() -> None:
    x, taps = torch.randn(2, 7, DIM), torch.randn(3, DIM)
    kernel = taps.flip(0).T[:, None]  # (D, 1, K): conv1d correlates, oldest tap first
    padded = torch.nn.functional.pad(x.transpose(1, 2), (2, 0))
    expected = torch.nn.functional.conv1d(padded, kernel, groups=DIM).transpose(1, 2)
    assert torch.allclose(filtered(x, taps), expected, atol=1e-5)
    assert torch.allclose(filtered(x[:, :1], taps), x[:, :1] * taps[0])


def test_dropout_is_for_training_alone() -> None:
    model = lively()
    vectors, codes = a_batch(1, 9)
    calm = model(vectors, codes)
    model.set_dropout(0.5)
    assert torch.equal(model(vectors, codes), calm)
    assert not torch.allclose(model.train()(vectors, codes), calm)


def test_outputs_and_items_have_unit_length() -> None:
    model = lively(n_items=2)
    lengths = model(*a_batch(4, 9)).norm(dim=-1)
    assert torch.allclose(lengths, torch.ones_like(lengths))
    texts = torch.randn(3, 8)
    assert torch.allclose(model.items(texts, torch.tensor([0, 1, -1])).norm(dim=-1), torch.ones(3))


def test_an_item_that_was_not_seen_in_training_is_its_text_alone() -> None:
    model = lively(n_items=2)
    texts = torch.randn(2, 8)
    unseen = model.items(texts, torch.tensor([-1, -1]))
    assert torch.equal(unseen, model.items(texts))
    assert not torch.isclose(model.items(texts, torch.tensor([0, 1])), unseen).all()
    assert not model.items(torch.zeros(1, 8)).any(), "neither text nor id: no direction"
    no_text = model.items(torch.zeros(1, 8), torch.tensor([1]))
    assert torch.allclose(no_text[0], torch.nn.functional.normalize(model.ids.weight[1], dim=0))


def test_one_seed_is_one_model() -> None:
    def weights(seed: int) -> Tensor:
        model = SequenceModel(SequenceShape(text_dim=8), seed)
        return torch.cat([weight.detach().ravel() for weight in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_random_weights_keep_the_neighbours_of_texts() -> None:
    model = SequenceModel(SequenceShape(text_dim=384))
    rng = np.random.default_rng(0)
    texts = torch.tensor(rng.normal(size=(20, 384)), dtype=torch.float32)
    near = texts + 0.3 * torch.tensor(rng.normal(size=(20, 384)), dtype=torch.float32)
    with torch.no_grad():
        found = (model.items(near) @ model.items(texts).T).argmax(1)
    assert torch.equal(found, torch.arange(20))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        SequenceShape(text_dim=8, dim=40)
    with pytest.raises(ValueError, match="negative"):
        SequenceShape(text_dim=8, n_taps=-1)


def test_there_is_a_code_for_every_type() -> None:
    from encoder.sequence_model import N_TYPES

    assert len(EventType) <= N_TYPES
