"""Real brokers that ask for TLS and logins: what works with them, and what each refusal says."""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from interest.errors import InvalidEvent, ServiceUnavailable
from interest.metrics import NoMetrics
from interest.settings import Settings
from interest_cli.doctor import check_kafka, check_redis
from interest_cli.replay import LoadedBundle
from interest_cli.services import EmbeddedServices
from interest_cli.wiring import open_worker
from streams.kafka_security import kafka_options, no_broker
from streams.outbox import Outbox, Record
from streams.publish import outgoing_events, outgoing_items, publish
from streams.topics import ensure_topics
from tests.certificates import Certificates, make_certificates
from tests.contract.conftest import running_redis
from tests.contract.test_redis_security import documented_user
from tests.secure_kafka import PASSWORD, USER, Right, SecureKafka, secure_kafka
from tests.stream.conftest import event, eventually, item
from tests.tls_front import tls_front

DOC = Path(__file__).resolve().parents[2] / "docs" / "security.md"


def documented_rights() -> list[Right]:
    """Give the rights that the documentation says a worker needs."""
    rights = [
        Right(operation.upper(), resource.upper(), prefix)
        for line in DOC.read_text(encoding="utf-8").splitlines()
        if line.startswith("kafka-acls.sh")
        for resource, prefix in re.findall(r"--(topic|group) (\S+)", line)
        for operation in re.findall(r"--operation (\S+)", line)
    ]
    assert {right.resource for right in rights} == {"TOPIC", "GROUP"}
    # The name librdkafka has for what the tools write as one word.
    names = {"DESCRIBECONFIGS": "DESCRIBE_CONFIGS"}
    return [
        Right(names.get(right.operation, right.operation), right.resource, right.prefix)
        for right in rights
    ]


@pytest.fixture(autouse=True)
def _unfinished_closes() -> Iterator[None]:
    """Collect connections over TLS that were still saying goodbye when the test's loop ended.

    aiokafka closes without waiting for the other side, which a loaded machine lets be late.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def kafka(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[SecureKafka]:
    folder = tmp_path_factory.mktemp("secure-kafka")
    with secure_kafka(folder, certificates, documented_rights()) as running:
        yield running


def settings_for(
    kafka: SecureKafka, certificates: Certificates, protocol: str, **changes: Any
) -> Settings:
    """Give settings that the listener of this protocol accepts, changed as told."""
    values: dict[str, Any] = {
        "kafka_bootstrap": kafka.bootstrap[protocol],
        "kafka_security_protocol": protocol,
        "topic_prefix": f"shop-{protocol.lower()}-",
        "partitions": 1,
    }
    if protocol.endswith("SSL"):
        values["kafka_ca_file"] = str(certificates.ca)
    if protocol == "SSL":
        values["kafka_cert_file"] = str(certificates.client_cert)
        values["kafka_key_file"] = str(certificates.client_key)
    if protocol.startswith("SASL"):
        values |= {"kafka_user": USER, "kafka_password": PASSWORD}
    return Settings(**(values | changes))


async def round_trip(settings: Settings) -> bytes:
    """Create the topics, send a record and read it back."""
    await ensure_topics(settings)
    topic = f"{settings.topic_prefix}behaviours"
    outbox = Outbox(settings, NoMetrics())
    await outbox.start()
    await outbox.send_all([Record(topic, b"key", b"value")])
    await outbox.ping()
    await outbox.stop()
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=settings.kafka_bootstrap,
        auto_offset_reset="earliest",
        **kafka_options(settings),
    )
    await consumer.start()
    try:
        value: bytes = (await consumer.getone()).value
        return value
    finally:
        await consumer.stop()


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("protocol", "mechanism"),
    [
        ("SASL_PLAINTEXT", "PLAIN"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-512"),
        ("SASL_SSL", "SCRAM-SHA-512"),
        ("SSL", "SCRAM-SHA-512"),
    ],
)
async def test_records_go_through_every_kind_of_listener(
    kafka: SecureKafka, certificates: Certificates, protocol: str, mechanism: str
) -> None:
    settings = settings_for(kafka, certificates, protocol, kafka_sasl_mechanism=mechanism)
    assert await round_trip(settings) == b"value"


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("listener", "changes", "says"),
    [
        (
            "SASL_SSL",
            {"kafka_password": "wrong-word"},
            "the login of user worker by SCRAM-SHA-512 is refused",
        ),
        ("SASL_PLAINTEXT", {"kafka_user": "nobody"}, "login of user nobody"),
        (
            "SASL_PLAINTEXT",
            {"kafka_password": "wrong-word", "kafka_sasl_mechanism": "PLAIN"},
            "INTEREST_KAFKA_PASSWORD",
        ),
        ("SASL_SSL", {"kafka_sasl_mechanism": "SCRAM-SHA-256"}, "INTEREST_KAFKA_SASL_MECHANISM"),
        ("SASL_SSL", {"kafka_ca_file": "stranger_ca"}, "certificate is refused"),
        ("SASL_SSL", {"kafka_ca_file": ""}, "INTEREST_KAFKA_CA_FILE"),
        ("SSL", {"kafka_cert_file": "", "kafka_key_file": ""}, "INTEREST_KAFKA_CERT_FILE"),
    ],
)
async def test_a_refusal_says_what_was_refused_and_never_the_password(
    kafka: SecureKafka,
    certificates: Certificates,
    listener: str,
    changes: dict[str, str],
    says: str,
) -> None:
    if changes.get("kafka_ca_file"):
        changes = changes | {"kafka_ca_file": str(certificates.stranger_ca)}
    settings = settings_for(kafka, certificates, listener, **changes)
    with pytest.raises(ServiceUnavailable, match=says) as caught:
        await ensure_topics(settings)
    outbox = Outbox(settings, NoMetrics())
    with pytest.raises(ServiceUnavailable, match=says):
        await outbox.start()
    assert "\n" not in str(caught.value)
    for password in (PASSWORD, "wrong-word"):
        assert password not in str(caught.value)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("listener", "spoken", "says"),
    [
        ("SASL_PLAINTEXT", "PLAINTEXT", "INTEREST_KAFKA_SECURITY_PROTOCOL is PLAINTEXT"),
        ("SASL_SSL", "PLAINTEXT", "INTEREST_KAFKA_SECURITY_PROTOCOL is PLAINTEXT"),
        ("PLAINTEXT", "SASL_PLAINTEXT", "takes no login"),
        ("SASL_PLAINTEXT", "SSL", "may expect a login or no TLS;"),
        ("SASL_SSL", "SSL", "INTEREST_KAFKA_SECURITY_PROTOCOL is SSL"),
    ],
)
async def test_a_listener_of_another_kind_is_named(
    kafka: SecureKafka, certificates: Certificates, listener: str, spoken: str, says: str
) -> None:
    settings = settings_for(kafka, certificates, spoken, kafka_bootstrap=kafka.bootstrap[listener])
    with pytest.raises(ServiceUnavailable, match=says):
        await ensure_topics(settings)


async def test_tls_towards_a_broker_without_is_named(
    embedded: EmbeddedServices, certificates: Certificates
) -> None:
    settings = Settings(
        kafka_bootstrap=embedded.kafka_bootstrap,
        kafka_security_protocol="SSL",
        kafka_ca_file=str(certificates.ca),
    )
    # A client gives up after 15 s, and then asks this.
    line = await no_broker(settings, OSError("told in vain"))
    assert "no answer, though something listens there" in line
    assert "INTEREST_KAFKA_SECURITY_PROTOCOL is SSL" in line


async def test_where_nothing_listens_the_client_s_own_words_are_told() -> None:
    line = await no_broker(Settings(kafka_bootstrap="127.0.0.1:1, nonsense"), OSError("its words"))
    assert line.startswith("no Kafka broker answers at 127.0.0.1:1, nonsense (its words); start")


@pytest.mark.kafka
async def test_rights_that_are_missing_are_named(
    kafka: SecureKafka, certificates: Certificates
) -> None:
    settings = settings_for(kafka, certificates, "SASL_SSL", topic_prefix="elsewhere-")
    with pytest.raises(ServiceUnavailable, match=r"refused to create topic .*(?i:authori[sz])"):
        await ensure_topics(settings)


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", ["SASL_SSL", "SSL"])
async def test_a_worker_lives_behind_tls_logins_and_access_rules(
    kafka: SecureKafka,
    certificates: Certificates,
    loaded: LoadedBundle,
    tmp_path: Path,
    protocol: str,
) -> None:
    """One item and one event go in, one vector comes out; every connection is secured."""
    with running_redis(tmp_path) as server:
        client: Any = server.client
        client.execute_command(*documented_user("s3cret-of-redis"))
        client.acl_setuser("default", enabled=False)
        client.close()
        path = server.url.removeprefix("unix://")
        with tls_front(path, certificates.server_both, certificates.ca) as port:
            settings = settings_for(
                kafka,
                certificates,
                protocol,
                group_id=f"interest-updater-{protocol}",
                session_timeout_s=3.0,
                checkpoint_min_s=0.1,
                redis_url=f"rediss://interest:s3cret-of-redis@127.0.0.1:{port}/0",
                redis_ca_file=str(certificates.ca),
                redis_cert_file=str(certificates.client_both),
            )
            await publish(settings, "items", outgoing_items([item("mug", "A red mug")], _fail))
            async with open_worker(settings, loaded, NoMetrics()) as (worker, _, vectors):
                await publish(settings, "events", outgoing_events([event("e", "alice")], _fail))
                await eventually(worker.idle)
                [state] = await vectors.fetch(["alice"], loaded.bundle.model_id)
            findings = {
                "kafka": await check_kafka(settings),
                "redis": await check_redis(settings),
            }
    assert state is not None
    assert state.vector.n_events == 1
    assert "1 partitions" in findings["kafka"]
    assert loaded.bundle.model_id in findings["redis"]
    assert not [text for text in findings.values() if PASSWORD in text or "s3cret" in text]


def _fail(error: InvalidEvent) -> None:
    raise error
