"""The cap on what one user can cost: so many encodes per second, and a burst before that counts.

A shopper who opens a basket of thirty lines sees each of them at once; a robot that sends all day
gets the rate. The generic cell rate algorithm (ITU-T I.371): one number per user.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: A user who was quiet may use so many seconds' worth of encodes at once.
_BURST_S: Final = 3.0
_PRUNE_S: Final = 1.0


class EncodeCap:
    """Remembers the users of the last seconds.

    Args:
        per_s: encodes of one user per second in the long run; None caps nobody.
        monotonic: seconds from any origin.
    """

    def __init__(
        self, per_s: float | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 0.0 if per_s is None else 1 / per_s
        self.monotonic = monotonic
        #: When all encodes of a user are paid for, on the monotonic clock.
        self._paid: dict[str, float] = {}
        self._pruned = monotonic()

    def rests_until(self, subject_id: str) -> float:
        """Tell until when a user must rest, on the monotonic clock; 0 for who need not."""
        paid = self._paid.get(subject_id)
        if paid is None:
            return 0.0
        until = paid - _BURST_S
        return until if until > self.monotonic() else 0.0

    def spend(self, subject_id: str) -> None:
        """Count an encode."""
        if not self._interval_s:
            return
        now = self.monotonic()
        self._paid[subject_id] = max(now, self._paid.get(subject_id, now)) + self._interval_s
        if now - self._pruned > _PRUNE_S:
            self._pruned = now
            self._paid = {user: paid for user, paid in self._paid.items() if paid > now}

    def give_back(self, subject_id: str) -> None:
        """Take back an encode that failed for no fault of the user's."""
        paid = self._paid.get(subject_id)
        if paid is not None:
            self._paid[subject_id] = paid - self._interval_s
