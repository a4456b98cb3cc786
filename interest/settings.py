"""Every setting of the product in one frozen object; ``interest_cli`` fills it once.

The environment variable of a field is ``INTEREST_`` and its name in capitals. The text of
``Meta`` is the documentation: ``docs/settings.md`` is generated from it and a test compares.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from interest.bundle import Pooling, RetrievalPath, UserEncoderKind
from interest.redaction import HIDDEN, SECRET, secret_fields, shown_url


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator can choose."""

    kafka_bootstrap: Annotated[
        str, Meta(min_length=1, description="Brokers, `host:port` separated by commas.")
    ] = "localhost:9092"
    kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(description="How brokers are spoken to: TLS with `SSL`, a login with `SASL`."),
    ] = "PLAINTEXT"
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        Meta(description="How the login is proved, where there is one."),
    ] = "SCRAM-SHA-512"
    kafka_user: Annotated[str, Meta(description="User of the login.")] = ""
    kafka_password: Annotated[str, Meta(description="Password of that user.", extra=SECRET)] = ""
    kafka_ca_file: Annotated[
        str, Meta(description="PEM file of the authorities that sign brokers' certificates; "
                  "empty: those the system trusts.")
    ] = ""  # fmt: skip
    kafka_cert_file: Annotated[
        str, Meta(description="PEM file of our certificate, where brokers ask for one.")
    ] = ""
    kafka_key_file: Annotated[
        str, Meta(description="PEM file of its key, not encrypted; empty: it is in the same file.")
    ] = ""
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
        str,
        Meta(
            min_length=1,
            description="Redis of the user vectors: `redis://user:password@host:6379/0`, "
            "`rediss://` for TLS; special characters percent-encoded.",
            extra=SECRET,
        ),
    ] = "redis://localhost:6379/0"
    redis_ca_file: Annotated[
        str, Meta(description="PEM file of the authorities that sign Redis's certificate; empty: "
                  "those the system trusts.")
    ] = ""  # fmt: skip
    redis_cert_file: Annotated[
        str, Meta(description="PEM file of our certificate, where Redis asks for one.")
    ] = ""
    redis_key_file: Annotated[
        str, Meta(description="PEM file of its key, not encrypted; empty: it is in the same file.")
    ] = ""
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
    qdrant_api_key: Annotated[
        str, Meta(description="API key of the Qdrant server.", extra=SECRET)
    ] = ""
    bundle: Annotated[
        str,
        Meta(description="Folder of a trained model bundle. It decides encoder, text pooling, "
             "window limits and dimension: of the settings below that concern them only "
             "`text_model` counts, as the place of the bundle's text model on this machine. "
             "Empty: the settings below."),
    ] = ""  # fmt: skip
    retrieval_path: Annotated[
        RetrievalPath | Literal["auto"],
        Meta(description="How the API finds items where a request does not say: `dense`, the "
             "nearest to the user's vector; `hybrid`, with title terms and links between items "
             "added; `rerank`, the best 200 of those ranked again; `auto`, what the bundle names "
             "as its best. A model without sparse vectors is always served by `dense`."),
    ] = "auto"  # fmt: skip
    text_model: Annotated[
        str,
        Meta(description="Hugging Face folder or id of the text model; empty: the one of the "
             "bundle, else the MiniLM of the `embedded` extra."),
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
             "text, read by the text model; `sequence`: self-attention over the behaviours."),
    ] = "decay"  # fmt: skip
    sequence_seed: Annotated[
        int, Meta(ge=0, description="Seed of the random weights of `sequence` without a bundle, "
                  "for measuring speed; the same gives the same vectors.")
    ] = 0  # fmt: skip
    sequence_dim: Annotated[
        int, Meta(ge=32, le=1024, description="Length of item and user vectors of random weights, "
                  "a multiple of 32.")
    ] = 64  # fmt: skip
    device: Annotated[
        str, Meta(description="Torch device; `auto` takes a GPU where torch finds one.")
    ] = "auto"
    threads: Annotated[
        int, Meta(ge=0, description="Threads of torch on a CPU; 0: the cores the process may use.")
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
    freshness_target_ms: Annotated[
        float, Meta(gt=0, description="How fresh vectors should be: one micro-batch takes at most "
                    "a third of it, unless too many users wait for that."),
    ] = 50.0  # fmt: skip
    window_store: Annotated[
        Literal["memory", "rocksdb"],
        Meta(description="Where a worker keeps windows: all in memory, or those used last, and the "
             "others in RocksDB (needs the `rocksdb` extra)."),
    ] = "memory"  # fmt: skip
    windows_in_memory: Annotated[
        int, Meta(ge=1, description="With `rocksdb`: windows in memory while a worker has every "
                  "partition, at least 1000 of each.")
    ] = 100_000  # fmt: skip
    window_folder: Annotated[
        str, Meta(description="With `rocksdb`: where each worker makes its folder, which goes when "
                  "it ends; empty: the system's place for temporary files.")
    ] = ""  # fmt: skip
    item_cache_items: Annotated[
        int, Meta(ge=1, description="Items whose vectors a worker keeps at hand.")
    ] = 100_000
    item_cache_half: Annotated[
        bool, Meta(description="Keep them in half precision: half of the memory, and cosines that "
                   "differ by less than 0.0000001.")
    ] = False  # fmt: skip
    item_cache_folder: Annotated[
        str, Meta(description="Keep them in a memory-mapped file in this folder, so that the "
                  "system may put those that are not used out of memory; empty: in memory.")
    ] = ""  # fmt: skip
    checkpoint_min_s: Annotated[
        float, Meta(gt=0, description="Shortest time between two checkpoints.")
    ] = 1.0
    checkpoint_max_s: Annotated[
        float, Meta(gt=0, description="Longest time between two checkpoints.")
    ] = 60.0
    max_uncommitted: Annotated[
        int, Meta(ge=1_000, description="Records read ahead of the commit at most; then the intake "
                  "waits for the checkpoint.")
    ] = 500_000  # fmt: skip
    user_encodes_per_s: Annotated[
        float, Meta(gt=0, description="Encodes of one user per second in the long run, after a "
                    "burst of three seconds' worth; more events share an encode.")
    ] = 10.0  # fmt: skip
    live_quality_share: Annotated[
        float, Meta(ge=0, le=1, description="Share of the users, chosen by a hash of the id, whose "
                    "events are ranked by the vector before them, as `interest_live_quality_…`; "
                    "0: none.")
    ] = 1.0  # fmt: skip
    live_quality_load: Annotated[
        float, Meta(gt=0, le=1, description="How much of a core that may take. What comes faster "
                    "waits, up to 32,768 events; what comes then is passed over, and counted.")
    ] = 0.02  # fmt: skip
    idle_days: Annotated[
        float, Meta(gt=0, description="Users without an event for so long leave memory and "
                    "changelog; at least `window_days`, and never before the windows of a "
                    "`bundle` have run out. Their vector stays until its own expiry.")
    ] = 90.0  # fmt: skip
    forget_key: Annotated[
        str, Meta(description="Secret of the hash that remains of a forgotten user. Keep it: with "
                  "another one the markers written so far no longer match.", extra=SECRET)
    ] = ""  # fmt: skip
    pseudonym_key: Annotated[
        str, Meta(description="Secret by which user ids are replaced at the door, so that nothing "
                  "we write holds one; needs `encryption_keys`. Empty: ids stay as they are. "
                  "Another key makes new people of all users.", extra=SECRET)
    ] = ""  # fmt: skip
    encryption_keys: Annotated[
        str, Meta(description="Keys that encrypt windows, vectors and dead letters at rest, as "
                  "`2:base64,1:base64`, 32 bytes each. The first writes, all read: put a new one "
                  "in front. Empty: nothing is encrypted.", extra=SECRET)
    ] = ""  # fmt: skip
    forget_marker_days: Annotated[
        float, Meta(gt=0, description="How long that marker is kept: longer than the retention of "
                    "the source topics and of dead letters.")
    ] = 400.0  # fmt: skip
    catch_up_s: Annotated[
        float, Meta(ge=0, description="How long vectors of a newly assigned partition wait for "
                    "its events to be read again, so that they do not step back.")
    ] = 30.0  # fmt: skip
    watchdog_s: Annotated[
        float, Meta(ge=0, description="A worker with lag whose services answer and which makes no "
                    "progress for so long ends with exit code 5; 0 never.")
    ] = 120.0  # fmt: skip
    dead_letter_days: Annotated[
        int, Meta(ge=1, le=3650, description="Days for which dead letters are kept; of a topic "
                  "that is created.")
    ] = 30  # fmt: skip
    popular_half_life_days: Annotated[
        float, Meta(gt=0, description="Half-life of an event's weight in the popular items.")
    ] = 7.0
    api_host: Annotated[str, Meta(description="Address the HTTP API listens on.")] = "127.0.0.1"
    api_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of the HTTP API; 0 takes a free one.")
    ] = 8000
    api_keys: Annotated[
        str, Meta(description="Keys of the HTTP API, one a line or separated by commas: "
                  "`name:read:key` or `name:admin:key`. Empty: it asks for none.", extra=SECRET)
    ] = ""  # fmt: skip
    api_open: Annotated[
        bool, Meta(description="Serve without keys on an address that other machines reach, since "
                   "something in front guards it.")
    ] = False  # fmt: skip
    worker_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of a worker's /healthz, /readyz and "
                  "/metrics; 0 takes a free one.")
    ] = 8001  # fmt: skip
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="What is logged.")
    ] = "info"

    def __repr__(self) -> str:
        """Show every setting but the secrets."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"Settings({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Give what may be shown; rich would print every field."""
        secrets = secret_fields(Settings)
        shown: list[tuple[str, Any]] = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name.endswith("_url"):
                value = shown_url(value)
            elif name in secrets and value:
                value = HIDDEN
            shown.append((name, value))
        return shown
