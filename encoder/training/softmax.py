"""Cross-entropy over many items, exact or sampled, without storing logits."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.sequence_rows import Ints

#: Logits held at once: 8 MB, as much as caches hold.
_CHUNK_LOGITS: Final = 2_097_152
#: Negatives are drawn by (events of the item) to this power (Mikolov et al. 2013).
_FLATTENED: Final = 0.75


class Negatives(NamedTuple):
    """Items that share the denominator, each once.

    ``offsets`` (K,) is added to their logits; 0 for the exact softmax.
    """

    ids: Ints  # (K,) ascending
    offsets: NDArray[np.float32]

    def columns(self, targets: Ints) -> Ints:
        """Give the place of each target among them, -1 where it is not there."""
        places = np.minimum(np.searchsorted(self.ids, targets), len(self.ids) - 1)
        return np.where(self.ids[places] == targets, places, -1)


class Sampler:
    """Draws negatives by popularity, and corrects for it.

    A drawn item j stands for 1 / (K·q(j)) items, so its logit is lowered by log(K·q(j)): the sum
    over the sample is then an unbiased estimate of the sum over all others (the logQ correction of
    Bengio and Senécal 2008; Yi et al. 2019, equation 3, who also correct the target, which is not
    drawn but always there). This corrects sampling; popular items stay as popular as they are.
    """

    def __init__(self, counts: Ints, n_sampled: int) -> None:
        """Prepare.

        Args:
            counts: (n,) how often each id stands in the training data, at least once.
        """
        weights = counts.astype(np.float64) ** _FLATTENED
        self._n = n_sampled
        self._log_share = np.log(weights / weights.sum())
        self._until = np.cumsum(weights) / weights.sum()

    def draw(self, seed: tuple[int, ...]) -> Negatives:
        """Draw with replacement; the same for the same seed."""
        drawn = np.random.default_rng(seed).random(self._n)
        places = np.minimum(np.searchsorted(self._until, drawn, side="right"), len(self._until) - 1)
        ids, times = np.unique(places, return_counts=True)
        offsets = np.log(times) - np.log(self._n) - self._log_share[ids]
        return Negatives(ids, offsets.astype(np.float32))


def all_items(n: int) -> Negatives:
    """Give the negatives of the exact softmax over ids 0 to n - 1."""
    return Negatives(np.arange(n), np.zeros(n, np.float32))


def softmax_loss(
    users: Tensor, rows: Tensor, own: Tensor, scale: Tensor, offsets: Tensor, columns: Tensor
) -> Tensor:
    """Give the mean over positions of -log softmax(scale · cosine) at the target.

    Shapes: M positions, K negatives. Gradients are made in the same pass over chunks of positions,
    so that no logit outlives its chunk (as in Cut Your Losses, Wijmans et al. 2025).

    Args:
        users: (M, D) unit rows.
        rows: (K, D) negatives, unit rows.
        own: (M, D) the targets.
        scale: inverse temperature, of no dimension.
        offsets: (K,) see :class:`Negatives`.
        columns: (M,) place of the target among the negatives, -1 for none: it counts once.
    """
    loss: Tensor = _SoftmaxLoss.apply(users, rows, own, scale, offsets, columns)  # type: ignore[no-untyped-call]
    return loss


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        rows: Tensor,
        own: Tensor,
        scale: Tensor,
        offsets: Tensor,
        columns: Tensor,
    ) -> Tensor:
        n, size = len(users), max(1, _CHUNK_LOGITS // max(1, len(rows)))
        own_cosines = (users * own).sum(dim=1)  # (M,)
        pulled = torch.empty_like(users)  # (M, D) Σⱼ p(j) · rows[j], without the target
        own_shares = torch.empty_like(own_cosines)
        to_rows = torch.zeros_like(rows)
        total = torch.zeros_like(scale)
        for first in range(0, n, size):
            part = slice(first, first + size)
            logits = torch.addmm(offsets, users[part], rows.t(), alpha=float(scale))
            logits = logits.to(users.dtype)  # of half precision under autocast
            inside = (columns[part] >= 0).nonzero().squeeze(1)
            logits[inside, columns[part][inside]] = -torch.inf
            own_logits = own_cosines[part] * scale
            peaks = torch.maximum(logits.amax(dim=1), own_logits)  # (m,)
            shares = logits.sub_(peaks[:, None]).exp_()
            own_share = (own_logits - peaks).exp()
            sums = shares.sum(dim=1) + own_share
            total += (sums.log() - (own_logits - peaks)).sum()
            shares.div_(sums[:, None])
            own_shares[part] = own_share / sums
            pulled[part] = shares @ rows
            to_rows += shares.t() @ users[part]
        off = (own_shares - 1)[:, None]  # (M, 1), how far the target is from certain
        to_users = pulled + off * own
        to_scale = (users * to_users).sum()
        factor = scale / n
        ctx.save_for_backward(
            to_users * factor, to_rows * factor, off * users * factor, to_scale / n
        )
        return total / n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        made = [gradient * saved for saved in ctx.saved_tensors]
        return (*made, None, None)
