"""Live quality of a recorded log, offline: what the worker's counters say once it has read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from rich.table import Table

from interest import metrics as m
from interest.encoded_items import EncodedItems
from interest.event import Event
from interest.fold import fold
from interest.item import Item
from interest.item_table import ItemTable
from interest.metrics import NoMetrics
from interest.pseudonyms import Pseudonyms
from interest.quality import ItemSample, SampledItems, count, is_chosen, rank, targets
from interest.settings import Settings
from interest.window import BehaviourWindow
from interest_cli.console import out
from interest_cli.replay import LoadedBundle, Progress, encode_items


class QualityCounts(NoMetrics):
    """Keeps counters by (name, label), as Prometheus would."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()

    def count(self, name: str, n: float = 1, label: str = "") -> None:
        """Add to a counter."""
        self.counted[name, label] += n  # type: ignore[assignment]  # floats count as well


class QualityLine(NamedTuple):
    """The counters of new or of repeated items, and the means they make; NaN of no event."""

    items: str
    n_events: int
    n_hits: int
    ndcg_sum: float

    @property
    def hit_rate(self) -> float:
        """Share of the events whose item was among the first 10."""
        return self.n_hits / self.n_events if self.n_events else np.nan

    @property
    def ndcg(self) -> float:
        """Mean of NDCG@10."""
        return self.ndcg_sum / self.n_events if self.n_events else np.nan


def quality_lines(counts: QualityCounts) -> list[QualityLine]:
    """Give a line for new and one for repeated items."""
    counted = counts.counted
    return [
        QualityLine(
            items,
            int(counted[m.QUALITY_EVENTS, items]),
            int(counted[m.QUALITY_HITS, items]),
            float(counted[m.QUALITY_NDCG, items]),
        )
        for items in ("new", "repeated")
    ]


def show_quality(counts: QualityCounts) -> None:
    """Print the counters, as they stand in /metrics, and the means they make."""
    table = Table("items", "events", "hits", "sum of NDCG@10", "hits@10", "NDCG@10", box=None)
    for line in quality_lines(counts):
        table.add_row(
            line.items, str(line.n_events), str(line.n_hits), f"{line.ndcg_sum:.6f}",
            f"{line.hit_rate:.4f}", f"{line.ndcg:.4f}",
        )  # fmt: skip
    out.print(table)
    skipped = {label: n for (name, label), n in counts.counted.items() if name == m.QUALITY_SKIPPED}
    if skipped:
        told = ", ".join(f"{n} {reason}" for reason, n in sorted(skipped.items()))
        out.print(f"not ranked: {told}", markup=False)


def offline_quality(
    events: Iterable[Event],
    items: Iterable[Item],
    loaded: LoadedBundle,
    settings: Settings,
    progress: Progress | None = None,
) -> QualityCounts:
    """Rank the item of each event by the vector of the window before it, see ADR 24.

    The order of the events of a user counts: it is that in which a worker gets them. The whole
    catalogue is known from the beginning; of several items with one id the last counts.

    Args:
        settings: which share of the users is asked.

    Raises:
        EncoderUnavailable: the device failed.
    """
    catalogue = {item.item_id: item for item in items}
    everything = encode_items(catalogue, loaded.item_encoder, progress)
    known = np.flatnonzero(everything.vectors.any(axis=1))  # the worker refuses the others
    encoded = EncodedItems(
        [everything.items_by_row[row] for row in known.tolist()], everything.vectors[known]
    )
    sample = ItemSample()
    sample.put(encoded)
    sampled = SampledItems.of(EncodedItems.stacked(encoded[item_id] for item_id in sample.ids))
    config = loaded.bundle.config
    counts, pseudonym = QualityCounts(), Pseudonyms(settings.pseudonym_key)
    windows: dict[str, BehaviourWindow] = {}
    table = ItemTable()
    for event in events:
        user_id = event.user_id
        if not is_chosen(pseudonym(user_id), settings.live_quality_share):
            continue
        window = windows.get(user_id) or BehaviourWindow(user_id, items=table)
        for target in targets(window, [event], config.window, config.decay.bad_rating):
            if target is not None:
                count(counts, target, rank(target, loaded.user_encoder, encoded, sampled))
        windows[user_id] = fold(window, [event], config.window)
    return counts
