"""How large a micro-batch may be: what the device does in time, by its measured speed.

A user who becomes dirty just after a batch has begun waits for that batch, for the next one, in
which they are, and for the upsert. So batches that take a third of the target keep it. Where so
many wait that the last of them will be late anyhow, small batches would only waste the device: then
throughput is what brings freshness back, and the whole budget is used. How long the oldest has
waited follows from how many wait; it is not read from record time stamps, since brokers and
producers have clocks of their own.
"""

from __future__ import annotations

from typing import Final

#: Of what one more measurement leaves of the weight of those before: the last 30 or so count.
_KEPT: Final = 0.97
_PARTS: Final = 3


class BatchSize:
    """Fits ``seconds = fixed + per_token × tokens`` to the batches so far, the last ones most.

    Args:
        budget_tokens: the most that a batch may ever have.
        target_s: how fresh vectors should be.
    """

    def __init__(self, budget_tokens: int, target_s: float) -> None:
        self._budget = budget_tokens
        self._target_s = target_s
        # Decayed sums of 1, x, y, x², xy, for least squares; x in tokens, y in seconds.
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._users = 0.0

    def observe(self, n_users: int, n_tokens: int, seconds: float) -> None:
        """Learn from one batch."""
        self._n = self._n * _KEPT + 1
        self._users = self._users * _KEPT + n_users
        self._x = self._x * _KEPT + n_tokens
        self._y = self._y * _KEPT + seconds
        self._xx = self._xx * _KEPT + n_tokens * n_tokens
        self._xy = self._xy * _KEPT + n_tokens * seconds

    def limit(self, n_waiting: int) -> int:
        """Give the most tokens of a batch, where so many users wait."""
        fixed_s, token_s = self._fit()
        if not token_s or fixed_s + token_s * self._tokens(n_waiting) > self._target_s:
            return self._budget
        # Where the fixed part alone takes too long, the batch is worth it at least.
        seconds = max(self._target_s / _PARTS - fixed_s, fixed_s)
        return max(1, int(min(self._budget, seconds / token_s)))

    def is_full(self, n_waiting: int) -> bool:
        """Tell whether so many users fill a batch, by what those before them cost."""
        return self._tokens(n_waiting) >= self.limit(n_waiting)

    def _tokens(self, n_users: int) -> float:
        return n_users * self._x / self._users if self._users else 0.0

    def _fit(self) -> tuple[float, float]:
        if not self._x:
            return 0.0, 0.0
        spread = self._n * self._xx - self._x * self._x
        # Batches of one size tell nothing of the parts: all of it is taken for cost of tokens.
        if spread > 1e-6 * self._n * self._xx:
            token_s = (self._n * self._xy - self._x * self._y) / spread
            fixed_s = (self._y - token_s * self._x) / self._n
            if token_s > 0 and fixed_s >= 0:
                return fixed_s, token_s
        return 0.0, self._y / self._x
