"""Weight of the text beside the model, and how fast it forgets, chosen on validation users."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.training.histories import Histories, Split
from encoder.training.ranking import HeldOut, ndcg
from interest.window import BehaviourWindow, WindowLimits

SHARES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
POSITION_DECAYS: Final = (0.4, 0.55, 0.7, 0.85, 0.95)


class Choice(NamedTuple):
    """A share of the text's cosine, the decay per position behind it, and the NDCG@10 of both."""

    share: float
    position_decay: float
    ndcg: float


def windows_before(
    histories: Histories, split: Split, limits: WindowLimits
) -> list[BehaviourWindow]:
    """Give the windows of validation users before the held-out event, as a worker has them."""
    found = []
    for user, target in zip(split.users.tolist(), split.targets.tolist(), strict=True):
        window = histories.windows[user]
        rows = list(window.rows())[: histories.places[target]][-limits.max_events :]
        oldest = rows[-1].ts - limits.span_ms
        found.append(window.with_rows(row for row in rows if row.ts > oldest))
    return found


def choose(
    learned: tuple[NDArray[np.float32], NDArray[np.float32]],
    texts: dict[float, NDArray[np.float32]],
    text_items: NDArray[np.float32],
    held_out: HeldOut,
) -> Choice:
    """Give the share and the decay with the best mean NDCG@10; the smaller share where equal.

    Shapes: n validation users, V items.

    Args:
        learned: (n, D) users and (V, D) items of the sequence model, unit rows.
        texts: by decay per position, (n, E) users.
        text_items: (V, E).
    """
    users, items = learned
    totals = {(share, decay): 0.0 for share in SHARES for decay in texts}
    for part in held_out.chunks(len(items)):
        cosines = users[part] @ items.T  # (m, V)
        for decay, text_users in texts.items():
            text_cosines = text_users[part] @ text_items.T
            for share in SHARES:
                scores = (1 - share) * cosines + share * text_cosines
                totals[share, decay] += float(ndcg(scores, held_out, part).sum())
    best = max(totals, key=lambda choice: (totals[choice], -choice[0]))
    return Choice(*best, totals[best] / max(1, len(users)))
