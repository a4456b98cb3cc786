"""The brokers a benchmark runs over: embedded, and Apache Kafka where it is beside the checkout."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from interest.errors import InterestError
from interest_cli.services import EmbeddedServices
from tests.servers import apache_kafka

BROKERS: Final = ("embedded", "kafka")


class Unavailable(Exception):
    """This machine lacks a server; the rows that need it say so."""


class Servers(msgspec.Struct, frozen=True):
    """Addresses of a broker and a Redis."""

    broker: str
    kafka_bootstrap: str
    redis_url: str


@contextmanager
def servers(broker: str) -> Iterator[Servers]:
    """Run one of :data:`BROKERS` and a Redis for the length of the block.

    Raises:
        Unavailable: a program is not installed, or does not start.
    """
    with ExitStack() as stack:
        try:
            embedded = stack.enter_context(EmbeddedServices())
            bootstrap = embedded.kafka_bootstrap
            if broker == "kafka":
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-kafka-"))
                bootstrap = stack.enter_context(apache_kafka(Path(folder)))
        except (InterestError, pytest.skip.Exception, pytest.fail.Exception) as error:
            raise Unavailable(str(error)) from error
        yield Servers(broker, bootstrap, embedded.redis_url)
