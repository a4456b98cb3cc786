"""The Faust application: our transport and table, agents that hand chunks on, nothing declared.

Topics are created by :mod:`streams.topics`, offsets committed by :mod:`streams.checkpoint`; of
Faust we use the group, the assignment, recovery, flow control and the agents.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import faust
from faust.types import TP
from faust.types.auth import CredentialsT
from mode.utils.queues import ThrowableQueue
from yarl import URL

from interest.settings import Settings
from streams.kafka_security import kafka_options
from streams.topics import TopicNames
from streams.transport import Chunk, ChunkConsumer, ChunkSchema, ChunkTransport
from streams.windows import WindowTable

log = logging.getLogger(__name__)

#: Chunks that may wait in one agent's queue. The consumer keeps fewer than that outstanding
#: for each partition; a full queue would hold up the other topics.
_CHUNKS_PER_PARTITION: Final = 4

Handler = Callable[[Chunk], Awaitable[None]]


class PresentQueue(ThrowableQueue):  # type: ignore[type-arg,misc,unused-ignore]
    """A queue that gives no chunk of an earlier generation.

    A rebalance clears the queues; but what waits for its turn to be put meanwhile, is put when the
    next recovery starts. Faust would count a changelog as read up to that chunk, and so pass over
    all that was cleared before it.
    """

    def __init__(self, app: InterestApp, maxsize: int, *, clear_on_resume: bool) -> None:
        super().__init__(
            maxsize=maxsize, flow_control=app.flow_control, clear_on_resume=clear_on_resume
        )
        self._app = app

    async def get(self) -> Any:
        """Wait for the next chunk of the present generation."""
        while True:
            event = await super().get()
            if event.message.generation_id == self._app.consumer_generation_id:
                return event


class InterestApp(faust.App):
    """A Faust app with chunked transport, and no folders."""

    #: How long a broker may hold a fetch that has nothing to give, ms.
    fetch_max_wait_ms: int
    #: Topics that are read by whoever has the windows of the partition.
    copartitioned: frozenset[str]
    #: Told where sources are read from, whenever that begins anew.
    on_seek: Callable[[int, Mapping[TP, int]], None]

    def _new_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_consumer, self)

    def FlowControlQueue(  # noqa: N802  # the name is Faust's
        self, maxsize: int | None = None, *, clear_on_resume: bool = False
    ) -> PresentQueue:
        """Make the queues of the agents and of the recovery."""
        return PresentQueue(self, maxsize or 0, clear_on_resume=clear_on_resume)

    def _create_directories(self) -> None:
        """Create none: nothing of ours is kept on disk."""

    def on_rebalance_end(self) -> None:
        """Take note that a recovery is over."""
        super().on_rebalance_end()
        self.chunk_consumer.recovery_ended()

    @property
    def chunk_consumer(self) -> ChunkConsumer:
        """The consumer, with its own commit."""
        consumer = self.consumer
        assert isinstance(consumer, ChunkConsumer)
        return consumer


def create_app(
    settings: Settings,
    names: TopicNames,
    n_partitions: int,
    on_events: Handler,
    on_items: Handler,
    on_failure: Callable[[Exception], None],
) -> tuple[InterestApp, WindowTable]:
    """Wire the agents and the table of windows.

    Args:
        on_failure: told when a handler raised; its agent then takes no more chunks.
    """
    session_s = settings.session_timeout_s
    addresses = settings.kafka_bootstrap.split(",")
    app = InterestApp(
        settings.group_id,
        broker=[URL(f"kafka://{address.strip()}") for address in addresses],
        broker_credentials=_credentials(settings),
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        stream_buffer_maxsize=_CHUNKS_PER_PARTITION * n_partitions,
        table_standby_replicas=0,
        # It compares what was read with what the broker calls the end, and there are brokers that
        # answer the first offset of the last batch; recovery itself reads batches whole.
        recovery_consistency_check=False,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=5_000,
        broker_session_timeout=session_s,
        # A rebalance is told of in the answer to a heartbeat: what takes over waits for the next.
        broker_heartbeat_interval=session_s / 20,
        broker_rebalance_timeout=max(session_s, 10.0),
        broker_request_timeout=max(2 * session_s, 30.0),
        broker_max_poll_interval=300.0,
    )

    app.fetch_max_wait_ms = settings.fetch_max_wait_ms
    app.copartitioned = frozenset(names.copartitioned)
    app.on_seek = lambda lap, offsets: None

    def topic(*topics: str) -> Any:
        return app.topic(
            *topics,
            schema=ChunkSchema(),
            acks=False,
            maxsize=_CHUNKS_PER_PARTITION * n_partitions * len(topics),
        )

    table = WindowTable(
        app,
        name="windows",
        key_type=bytes,
        value_type=bytes,
        partitions=n_partitions,
        # Chunks of up to 1 MiB each, not records, may wait to be restored. 1 is special to Faust.
        recovery_buffer_size=2,
        changelog_topic=app.topic(
            names.windows, schema=ChunkSchema(), acks=False, partitions=n_partitions, internal=True
        ),
    )
    app.tables.add(table)
    events = topic(names.behaviours, names.routed, names.forget)
    _agent(app, events, "events", on_events, on_failure)
    _agent(app, topic(names.catalogue), "items", on_items, on_failure)
    return app, table


def _credentials(settings: Settings) -> CredentialsT | None:
    """Give Faust what :func:`kafka_options` gives every other client."""
    options = kafka_options(settings)
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=options.get("ssl_context"),
        )
    if "ssl_context" in options:
        return faust.SSLCredentials(options["ssl_context"])
    return None


def _agent(
    app: InterestApp,
    topic: Any,
    name: str,
    handle: Handler,
    on_failure: Callable[[Exception], None],
) -> None:
    async def agent(stream: Any) -> None:
        async for chunk in stream.noack():
            try:
                await handle(chunk)
            except Exception as error:
                # Going on would pass over records, and so would Faust, which starts an agent
                # that raised again behind the chunk. Reading from the commit loses nothing.
                log.exception("the %s agent failed on %s; the worker stops", name, chunk.tp)
                on_failure(error)
                await asyncio.Event().wait()
            app.chunk_consumer.finished(chunk)

    app.agent(topic, name=name)(agent)
