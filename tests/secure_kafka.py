"""Apache Kafka with a listener for every way to secure one, and users with passwords."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka.admin
import msgspec
import pytest

from tests.certificates import Certificates
from tests.servers import KAFKA_START, Broker, free_port

USER = "worker"
PASSWORD = "correct, =horse"  # a comma and an equals sign have a meaning in SCRAM
_LISTENERS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MODULE = "org.apache.kafka.common.security"


class Right(msgspec.Struct, frozen=True):
    """An operation on the topics or groups whose names begin so; all capitals."""

    operation: str
    resource: str
    prefix: str


class SecureKafka(msgspec.Struct, frozen=True):
    """Addresses by security protocol."""

    bootstrap: dict[str, str]


@contextmanager
def secure_kafka(
    folder: Path, certificates: Certificates, rights: Sequence[Right]
) -> Iterator[SecureKafka]:
    """Run one node; clients of the listener SSL need a certificate of the authority.

    Args:
        rights: what users with a login or a certificate may do.
    """
    if not KAFKA_START.exists():
        pytest.skip(f"no Apache Kafka: {KAFKA_START} does not exist (set KAFKA_START)")
    ports = {name: free_port() for name in _LISTENERS}
    controller = free_port()
    addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    listeners = ",".join(f"{name}://{address}" for name, address in addresses.items())
    protocols = ",".join(f"{name}:{name}" for name in _LISTENERS)
    properties = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
        "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.server_both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
        "listener.name.ssl.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        # Only this listener knows every mechanism, so that one can be refused elsewhere.
        "listener.name.sasl_ssl.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",  # of the listener without a login, for us and itself
    }
    for listener in ("sasl_plaintext", "sasl_ssl"):
        of = f"listener.name.{listener}"
        properties[f"{of}.plain.sasl.jaas.config"] = (
            f'{_MODULE}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        )
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            properties[f"{of}.{mechanism}.sasl.jaas.config"] = (
                f"{_MODULE}.scram.ScramLoginModule required;"
            )
    broker = Broker(
        [
            str(KAFKA_START), str(ports["PLAINTEXT"]), str(folder / "data"),
            *(f"{name}={value}" for name, value in properties.items()),
        ],
        ports["PLAINTEXT"],
        folder / "kafka.log",
        addresses["PLAINTEXT"],
        {"KAFKA_CONTROLLER_PORT": str(controller), "KAFKA_HEAP": "512m", "KAFKA_TIER": "1"},
    )  # fmt: skip
    try:
        broker.start()
        _add_user(addresses["PLAINTEXT"])
        _add_rights(addresses["PLAINTEXT"], rights)
        yield SecureKafka(addresses)
    finally:
        broker.kill()


def _add_user(bootstrap: str) -> None:
    admin: Any = confluent_kafka.admin  # its types do not export what they import
    client = admin.AdminClient({"bootstrap.servers": bootstrap})
    # A request may name a user once.
    for mechanism in (admin.ScramMechanism.SCRAM_SHA_256, admin.ScramMechanism.SCRAM_SHA_512):
        credential = admin.ScramCredentialInfo(mechanism, 4096)
        upsertion = admin.UserScramCredentialUpsertion(USER, credential, PASSWORD.encode())
        [future] = client.alter_user_scram_credentials([upsertion]).values()
        future.result(timeout=30)


def _add_rights(bootstrap: str, rights: Sequence[Right]) -> None:
    admin: Any = confluent_kafka.admin
    client = admin.AdminClient({"bootstrap.servers": bootstrap})
    bindings = [
        admin.AclBinding(
            admin.ResourceType[right.resource],
            right.prefix,
            admin.ResourcePatternType.PREFIXED,
            principal,
            "*",
            admin.AclOperation[right.operation],
            admin.AclPermissionType.ALLOW,
        )
        for right in rights
        for principal in (f"User:{USER}", "User:CN=worker")
    ]
    for future in client.create_acls(bindings).values():
        future.result(timeout=30)
