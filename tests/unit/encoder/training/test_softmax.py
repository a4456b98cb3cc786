from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from encoder.training import softmax
from encoder.training.softmax import Negatives, Sampler, all_items, softmax_loss


def case(n: int = 11, n_items: int = 7, dim: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    users, items = (
        functional.normalize(torch.randn(k, dim, generator=generator, dtype=torch.float64), dim=1)
        for k in (n, n_items)
    )
    targets = torch.randint(n_items, (n,), generator=generator)
    scale = torch.tensor(7.0, dtype=torch.float64)
    return users, items, targets, scale


def ours(
    users: Tensor, items: Tensor, targets: Tensor, scale: Tensor, negatives: Negatives
) -> Tensor:
    return softmax_loss(
        users, items[torch.from_numpy(negatives.ids)], items[targets], scale,
        torch.from_numpy(negatives.offsets).to(users.dtype),
        torch.from_numpy(negatives.columns(targets.numpy())),
    )  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 20, 10_000])
def test_the_exact_loss_and_its_gradients_are_those_of_cross_entropy(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "_CHUNK_LOGITS", chunk)
    made: list[Tensor | None] = []
    expected: list[Tensor | None] = []
    for found, is_ours in ((made, True), (expected, False)):
        users, items, targets, scale = case()
        inputs = [tensor.requires_grad_() for tensor in (users, items, scale)]
        if is_ours:
            loss = ours(users, items, targets, scale, all_items(len(items)))
        else:
            loss = functional.cross_entropy(scale * users @ items.T, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        found += [loss.detach(), *(tensor.grad for tensor in inputs)]
    for one, other in zip(made, expected, strict=True):
        assert one is not None
        assert other is not None
        assert torch.allclose(one, other, atol=1e-6)


def test_a_target_among_the_sample_counts_once() -> None:
    users, items, targets, scale = case()
    some = Negatives(np.array([0, 2, 5]), np.array([0.3, -0.2, 0.1], np.float32))
    logits = scale * users @ items.T
    expected = []
    for row, target in zip(logits, targets.tolist(), strict=True):
        others = [row[i] + o for i, o in zip(some.ids, some.offsets, strict=True) if i != target]
        expected.append(torch.logsumexp(torch.stack([row[target], *others]), 0) - row[target])
    found = ours(users, items, targets, scale, some)
    assert torch.allclose(found, torch.stack(expected).mean(), atol=1e-6)


def test_a_sample_gives_the_sum_over_all_items_without_bias() -> None:
    counts = np.array([100, 30, 10, 3, 1, 1])
    logits = np.array([1.0, 0.5, -1.0, 2.0, 0.0, 3.0])
    sampler = Sampler(counts, 4)
    sums = []
    for draw in range(20_000):
        negatives = sampler.draw((draw,))
        assert (np.diff(negatives.ids) > 0).all(), "each once"
        sums.append(np.exp(logits[negatives.ids] + negatives.offsets).sum())
    assert np.isclose(np.mean(sums), np.exp(logits).sum(), rtol=0.05)


def test_a_draw_depends_on_its_seed_alone() -> None:
    sampler = Sampler(np.arange(1, 100), 10)
    assert np.array_equal(sampler.draw((1, 2)).ids, sampler.draw((1, 2)).ids)
    assert not np.array_equal(sampler.draw((1, 2)).ids, sampler.draw((1, 3)).ids)


def test_a_step_with_a_large_sample_moves_like_the_exact_one() -> None:
    gradients = []
    for negatives in (all_items(7), Sampler(np.full(7, 3), 50_000).draw((0,))):
        users, items, targets, scale = case()
        users.requires_grad_()
        ours(users, items, targets, scale, negatives).backward()  # type: ignore[no-untyped-call]
        assert users.grad is not None
        gradients.append(users.grad)
    one, other = (gradient.ravel() for gradient in gradients)
    assert functional.cosine_similarity(one, other, dim=0) > 0.999
