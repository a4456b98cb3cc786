"""`interest replay --show`: some users of a log, their last items, and what they are offered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from rich.table import Table

from encoder.decay import DecayUserEncoder
from encoder.evaluation.baselines import CoOccurrence, Ease, Popularity
from encoder.evaluation.protocols import Cases, Split
from encoder.evaluation.ranking import Ranker
from encoder.evaluation.showcase import (
    Showcase,
    best_items,
    choose,
    dataset_of,
    history_of,
    numbered,
    related_shares,
)
from encoder.evaluation.vectors import LastItem, VectorRanker
from encoder.factory import load_text_model
from encoder.items import TextItemEncoder
from encoder.links import EASE_MAX_ITEMS
from encoder.zero_shot import DAY_MS
from interest.bundle import DecayParameters
from interest.encoded_items import EncodedItems
from interest.errors import BadInput
from interest.item import Item
from interest.ports import ItemEncoder, UserEncoder
from interest.settings import Settings
from interest.window import BehaviourWindow
from interest_cli.console import out
from interest_cli.replay import LoadedBundle, Progress, encode_items

#: The row of the model that the settings name.
SERVED: Final = "this model"
_N_LAST: Final = 5
_N_BEST: Final = 5
#: All events of a window alike: the usual running mean.
_MEAN: Final = DecayParameters(position_decay=1.0, half_life_ms=10**9 * DAY_MS)


def make_showcase(
    windows: Sequence[BehaviourWindow],
    items: Sequence[Item],
    loaded: LoadedBundle,
    settings: Settings,
    n_users: int,
    seed: int,
    progress: Progress | None = None,
) -> Showcase:
    """Choose users of at least five items, and ask the model and the baselines for five more each.

    Seen items are left out, as they are served. Baselines are fitted on all windows.

    Args:
        windows: of all users, by the limits of the bundle.

    Raises:
        BadInput: nobody has five items of this catalogue.
        EncoderUnavailable: the text model cannot be loaded, or a device failed.
    """
    everybody = numbered(sorted(windows, key=lambda window: window.subject_id), items)
    chosen = choose(everybody, n_users, seed, _N_LAST) if everybody else []
    if not chosen:
        raise BadInput(
            f"no user of this log has {_N_LAST} items of this catalogue; do the files belong "
            "together?"
        )
    shown = [everybody[i] for i in chosen]
    histories = [history_of(window) for window in shown]
    rankers = {
        SERVED: lambda: _by_vectors(
            items, loaded.item_encoder, lambda _: loaded.user_encoder, progress
        ),
        **_baselines(everybody, items, settings, progress),
    }
    best = {
        name: best_items(make().scores(shown), histories, _N_BEST, seed)
        for name, make in rankers.items()
    }
    return Showcase(items, [window.subject_id for window in shown], histories, best)


def _baselines(
    windows: Sequence[BehaviourWindow],
    items: Sequence[Item],
    settings: Settings,
    progress: Progress | None,
) -> dict[str, Callable[[], Ranker]]:
    dataset = dataset_of(windows, items)
    nobody = Cases(np.zeros(0, np.int64), np.zeros(0, np.int64))
    split = Split("leave-one-out", np.ones(len(dataset.items), np.bool_), nobody, nobody)
    made: list[Ranker] = []

    def mean() -> Ranker:
        if not made:
            texts = TextItemEncoder(load_text_model(settings))
            made.append(
                _by_vectors(items, texts, lambda held: DecayUserEncoder(held, _MEAN), progress)
            )
        return made[0]

    rankers: dict[str, Callable[[], Ranker]] = {
        "popularity": lambda: Popularity(dataset, split),
        "co-occurrence": lambda: CoOccurrence(dataset, split),
    }
    if len(items) <= EASE_MAX_ITEMS:
        rankers["ease"] = lambda: Ease(dataset, split)
    return rankers | {"mean-of-items": mean, "last-item": lambda: LastItem(mean())}


def _by_vectors(
    items: Sequence[Item],
    encoder: ItemEncoder,
    users: Callable[[ItemEncoder], UserEncoder],
    progress: Progress | None,
) -> Ranker:
    encoded = encode_items({item.item_id: item for item in items}, encoder, progress)
    known = np.flatnonzero(encoded.vectors.any(axis=1))
    held = EncodedItems([items[row] for row in known.tolist()], encoded.vectors[known])
    return VectorRanker(users(encoder), encoded.vectors, held)


def show(showcase: Showcase) -> None:
    """Print each user's last items beside what the model recommends, then how related rows are."""
    items, best = showcase.items, showcase.best[SERVED]
    for user_id, history, rows in zip(
        showcase.user_ids, showcase.histories, best.tolist(), strict=True
    ):
        table = Table(
            f"last items of user {user_id}", "recommended", box=None, padding=(0, 2, 0, 0)
        )
        found = [row for row in rows if row >= 0]
        for last, row in itertools.zip_longest(history[:_N_LAST], found):
            table.add_row(_title(items, last), _title(items, row))
        out.print(table)
        out.print()
    table = Table(
        f"of the top {_N_BEST}, with a title word or category of",
        "the whole history", f"the last {_N_LAST} items", box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    whole, last_ones = related_shares(showcase), related_shares(showcase, _N_LAST)
    for name in showcase.best:
        table.add_row(name, f"{whole[name]:.1%}", f"{last_ones[name]:.1%}")
    out.print(table)


def _title(items: Sequence[Item], row: int | None) -> str:
    return "" if row is None else items[row].title or items[row].item_id
