"""What the settings of Kafka's security become, and which of them contradict each other."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from interest.errors import BadInput
from interest.settings import Settings
from streams.kafka_security import kafka_options
from tests.certificates import Certificates, make_certificates

LOGIN: dict[str, Any] = {"kafka_user": "u", "kafka_password": "pw-not-shown"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_nothing_set_is_plain_text() -> None:
    assert kafka_options(Settings()) == {"security_protocol": "PLAINTEXT"}


def test_a_login_takes_its_mechanism_user_and_password() -> None:
    settings = Settings(
        kafka_security_protocol="SASL_PLAINTEXT", kafka_sasl_mechanism="PLAIN", **LOGIN
    )
    assert kafka_options(settings) == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "u",
        "sasl_plain_password": "pw-not-shown",
    }


def test_tls_checks_certificate_and_host_name(certificates: Certificates) -> None:
    settings = Settings(kafka_security_protocol="SSL", kafka_ca_file=str(certificates.ca))
    context = kafka_options(settings)["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    [authority] = context.get_ca_certs()
    assert (("commonName", "tests"),) in authority["subject"]


def test_a_key_may_lie_in_the_certificate_s_file(certificates: Certificates) -> None:
    settings = Settings(
        kafka_security_protocol="SSL", kafka_cert_file=str(certificates.client_both)
    )
    assert isinstance(kafka_options(settings)["ssl_context"], ssl.SSLContext)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "KAFKA_USER and INTEREST_KAFKA_PASSWORD are not"),
        (
            {"kafka_security_protocol": "SASL_SSL", "kafka_user": "u"},
            "but INTEREST_KAFKA_PASSWORD is not set",
        ),
        (LOGIN, "set it to SASL_SSL or SASL_PLAINTEXT for a login"),
        ({"kafka_security_protocol": "SSL", **LOGIN}, "set it to SASL_SSL for a login"),
        ({"kafka_ca_file": "ca.pem"}, "INTEREST_KAFKA_CA_FILE is set.*set it to SSL for TLS"),
        (
            {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_ca_file": "ca.pem", **LOGIN},
            "set it to SASL_SSL for TLS",
        ),
        (
            {"kafka_security_protocol": "SSL", "kafka_key_file": "key.pem"},
            "INTEREST_KAFKA_KEY_FILE is set without INTEREST_KAFKA_CERT_FILE",
        ),
        (
            {"kafka_security_protocol": "SSL", "kafka_ca_file": "/nowhere/ca.pem"},
            "INTEREST_KAFKA_CA_FILE /nowhere/ca.pem cannot be read: No such file",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_one_clear_line(
    values: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        kafka_options(Settings(**values))
    assert "\n" not in str(caught.value)
    assert "pw-not-shown" not in str(caught.value)


def test_a_file_that_holds_something_else_is_named(
    certificates: Certificates, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("hello")
    tls: dict[str, Any] = {"kafka_security_protocol": "SSL"}
    with pytest.raises(BadInput, match=r"INTEREST_KAFKA_CA_FILE .*wrong.pem holds no certificate"):
        kafka_options(Settings(**tls, kafka_ca_file=str(wrong)))
    with pytest.raises(BadInput, match=r"INTEREST_KAFKA_CERT_FILE .*wrong.pem"):
        kafka_options(Settings(**tls, kafka_cert_file=str(wrong)))
    with pytest.raises(BadInput, match="are no certificate and its key"):
        kafka_options(
            Settings(
                **tls,
                kafka_cert_file=str(certificates.client_cert),
                kafka_key_file=str(certificates.server_both),
            )
        )


def test_an_encrypted_key_is_refused_instead_of_asked_for(certificates: Certificates) -> None:
    """OpenSSL would ask for the password on the terminal, and a worker has none."""
    settings = Settings(
        kafka_security_protocol="SSL",
        kafka_cert_file=str(certificates.client_cert),
        kafka_key_file=str(certificates.encrypted_key),
    )
    with pytest.raises(BadInput, match="is encrypted"):
        kafka_options(settings)
