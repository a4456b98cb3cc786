"""Every setting of the product in one frozen object; ``interest_cli`` fills it once.

The environment variable of a field is ``INTEREST_`` and its name in capitals. The text of
``Meta`` is the documentation: ``docs/settings.md`` is generated from it and a test compares.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from interest.bundle import Pooling, UserEncoderKind


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator can choose."""

    kafka_bootstrap: Annotated[
        str, Meta(min_length=1, description="Brokers, `host:port` separated by commas.")
    ] = "localhost:9092"
    group_id: Annotated[
        str, Meta(min_length=1, description="Consumer group and application id of the workers.")
    ] = "interest-updater"
    topic_prefix: Annotated[
        str, Meta(description="Put before every topic name, for several installations.")
    ] = ""
    partitions: Annotated[
        int,
        Meta(ge=1, le=10_000, description="Partitions of topics that are created. Where the "
             "`behaviours` topic exists, its count is taken."),
    ] = 8  # fmt: skip
    replication: Annotated[
        int, Meta(ge=1, le=10, description="Replicas of topics that are created.")
    ] = 1
    session_timeout_s: Annotated[
        float, Meta(gt=0, description="A worker that is silent for so long loses its partitions.")
    ] = 10.0
    fetch_max_wait_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=5_000,
            description="How long a broker may hold a fetch that has nothing to give. The "
            "embedded broker looks for news only twice in that time.",
        ),
    ] = 500
    redis_url: Annotated[
        str, Meta(min_length=1, description="Redis of the user vectors, `redis://` or `rediss://`.")
    ] = "redis://localhost:6379/0"
    redis_prefix: Annotated[str, Meta(description="Put before every Redis key.")] = "interest:"
    vector_ttl_s: Annotated[
        int, Meta(ge=0, description="Seconds after its last upsert when a user vector expires; "
                  "0 keeps it."),
    ] = 0  # fmt: skip
    qdrant_url: Annotated[
        str, Meta(description="Qdrant server of the items; empty: an engine in each process.")
    ] = ""
    qdrant_grpc_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="gRPC port of that server, usually 6334, for faster answers; 0 uses HTTP.",
        ),
    ] = 0
    qdrant_api_key: Annotated[str, Meta(description="API key of the Qdrant server.")] = ""
    text_model: Annotated[
        str,
        Meta(description="Hugging Face folder or id of the text model; empty: the MiniLM of the "
             "`embedded` extra."),
    ] = ""  # fmt: skip
    text_pooling: Annotated[
        Pooling | Literal["auto"],
        Meta(description="How tokens become one vector: `mean`, `first`, `last`; `auto` takes "
             "what the model folder says, else `last` for decoders and `mean` for encoders."),
    ] = "auto"  # fmt: skip
    text_instruction: Annotated[
        str, Meta(description="Prefix of every text, for models that were trained with one.")
    ] = ""
    text_max_tokens: Annotated[
        int, Meta(ge=8, le=32_768, description="Texts are cut at so many tokens, or at the "
                  "model's own limit.")
    ] = 256  # fmt: skip
    user_encoder: Annotated[
        UserEncoderKind,
        Meta(description="`decay`: attention pooling over item vectors; `text`: the window as "
             "text, read by the text model."),
    ] = "decay"  # fmt: skip
    device: Annotated[
        str, Meta(description="Torch device; `auto` takes a GPU where torch finds one.")
    ] = "auto"
    threads: Annotated[
        int, Meta(ge=0, description="Threads of torch on a CPU; 0 leaves torch's choice.")
    ] = 0
    window_max_events: Annotated[
        int, Meta(ge=1, le=1000, description="Events in a behaviour window.")
    ] = 50
    window_days: Annotated[
        float, Meta(gt=0, description="Days before a user's own newest event that count.")
    ] = 30.0
    batch_tokens: Annotated[
        int, Meta(ge=1, description="Tokens in one micro-batch of users at most.")
    ] = 16_384
    item_cache_items: Annotated[
        int, Meta(ge=1, description="Items whose vectors a worker keeps at hand.")
    ] = 100_000
    checkpoint_min_s: Annotated[
        float, Meta(gt=0, description="Shortest time between two checkpoints.")
    ] = 1.0
    checkpoint_max_s: Annotated[
        float, Meta(gt=0, description="Longest time between two checkpoints.")
    ] = 60.0
    popular_half_life_days: Annotated[
        float, Meta(gt=0, description="Half-life of an event's weight in the popular items.")
    ] = 7.0
    api_host: Annotated[str, Meta(description="Address the HTTP API listens on.")] = "127.0.0.1"
    api_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of the HTTP API; 0 takes a free one.")
    ] = 8000
    worker_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of a worker's /healthz, /readyz and "
                  "/metrics; 0 takes a free one.")
    ] = 8001  # fmt: skip
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="What is logged.")
    ] = "info"
