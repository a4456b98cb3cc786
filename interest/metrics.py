"""Every metric of the product, named once, with its unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

_LATENCY_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class MetricSpec(NamedTuple):
    """What a metric is; ``label`` is the name of its one label, empty for none."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str = ""
    buckets: tuple[float, ...] = ()


EVENTS: Final = "interest_events_total"
DEAD_LETTERS: Final = "interest_dead_letters_total"
ROUTED: Final = "interest_routed_events_total"
ITEMS: Final = "interest_items_encoded_total"
ITEMS_UNCHANGED: Final = "interest_items_unchanged_total"
VECTORS: Final = "interest_vectors_upserted_total"
REFUSED: Final = "interest_upserts_refused_total"
FRESHNESS: Final = "interest_freshness_seconds"
ENCODE: Final = "interest_encode_seconds"
UPSERT: Final = "interest_upsert_seconds"
CHECKPOINT: Final = "interest_checkpoint_seconds"
BATCH_USERS: Final = "interest_batch_users"
DIRTY: Final = "interest_dirty_users"
WINDOWS: Final = "interest_windows"
LAG: Final = "interest_lag_offsets"
POISON: Final = "interest_poison_windows_total"
RETRIES: Final = "interest_retries_total"
SUPPRESSED: Final = "interest_encodes_suppressed_total"
FORGOTTEN: Final = "interest_forgotten_users_total"
DROPPED: Final = "interest_forgotten_events_total"
IDLE: Final = "interest_idle_users_total"
SOURCE_RESETS: Final = "interest_source_resets_total"
RECONCILED: Final = "interest_reconciled_vectors_total"
UNCOMMITTED: Final = "interest_uncommitted_records"
MEMORY: Final = "interest_resident_bytes"
QUALITY_EVENTS: Final = "interest_live_quality_events_total"
QUALITY_HITS: Final = "interest_live_quality_hits_total"
QUALITY_NDCG: Final = "interest_live_quality_ndcg_total"
QUALITY_SKIPPED: Final = "interest_live_quality_skipped_total"
REQUESTS: Final = "interest_http_request_seconds"
UNAUTHORISED: Final = "interest_http_unauthorised_total"

METRICS: Final = (
    MetricSpec(EVENTS, "counter", "Events folded, by type", "type"),
    MetricSpec(DEAD_LETTERS, "counter", "Messages sent to the dead-letter topic", "reason"),
    MetricSpec(ROUTED, "counter", "Events sent on to the partition of their subject"),
    MetricSpec(ITEMS, "counter", "Items encoded and announced"),
    MetricSpec(ITEMS_UNCHANGED, "counter", "Items announced with the vector their text has"),
    MetricSpec(VECTORS, "counter", "User vectors upserted"),
    MetricSpec(REFUSED, "counter", "Upserts refused because a higher token was stored"),
    MetricSpec(
        FRESHNESS, "histogram", "Readable time minus time stamp of the Kafka record, seconds",
        buckets=_LATENCY_S,
    ),
    MetricSpec(ENCODE, "histogram", "Encoding of one micro-batch, seconds", buckets=_LATENCY_S),
    MetricSpec(UPSERT, "histogram", "Upsert of one micro-batch, seconds", buckets=_LATENCY_S),
    MetricSpec(CHECKPOINT, "histogram", "One checkpoint, seconds", buckets=_LATENCY_S),
    MetricSpec(BATCH_USERS, "histogram", "Users in one micro-batch", buckets=_SIZES),
    MetricSpec(DIRTY, "gauge", "Users who wait to be encoded"),
    MetricSpec(WINDOWS, "gauge", "Behaviour windows in memory"),
    MetricSpec(LAG, "gauge", "Records not yet read, by topic", "topic"),
    MetricSpec(POISON, "counter", "Events that left their window because no encode takes them"),
    MetricSpec(RETRIES, "counter", "Retries after a service failed, by service", "service"),
    MetricSpec(SUPPRESSED, "counter", "Encodes saved by the cap per user"),
    MetricSpec(FORGOTTEN, "counter", "Users forgotten on request"),
    MetricSpec(DROPPED, "counter", "Events dropped because their user was forgotten later"),
    MetricSpec(IDLE, "counter", "Idle users who left memory and changelog"),
    MetricSpec(SOURCE_RESETS, "counter", "Source partitions that do not go on where this group "
               "stopped, by what happened", "kind"),
    MetricSpec(RECONCILED, "counter", "Vectors renewed because Redis did not hold what it should"),
    MetricSpec(UNCOMMITTED, "gauge", "Records read ahead of the commit"),
    MetricSpec(MEMORY, "gauge", "Resident memory of the worker, bytes"),
    MetricSpec(QUALITY_EVENTS, "counter", "Events whose item was ranked by the vector before them, "
               "by whether the window held the item", "item"),
    MetricSpec(QUALITY_HITS, "counter", "Of those, items among the first 10 of 1,000", "item"),
    MetricSpec(QUALITY_NDCG, "counter", "Of those, the sum of NDCG@10", "item"),
    MetricSpec(QUALITY_SKIPPED, "counter", "Events that were not ranked, by why", "reason"),
    MetricSpec(
        REQUESTS, "histogram", "HTTP requests by route, seconds", "route", buckets=_LATENCY_S
    ),
    MetricSpec(UNAUTHORISED, "counter", "HTTP requests without a key that allows them", "status"),
)  # fmt: skip


class NoMetrics:
    """Drops every measurement; for tools that report in another way."""

    def count(self, name: str, n: float = 1, label: str = "") -> None:
        """Drop it."""

    def observe(self, name: str, value: float, label: str = "") -> None:
        """Drop it."""

    def observe_many(self, name: str, values: Sequence[float], label: str = "") -> None:
        """Drop them."""

    def set(self, name: str, value: float, label: str = "") -> None:
        """Drop it."""
