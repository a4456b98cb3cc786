"""How Kafka is spoken to: TLS and login of the settings, for every client, and what refused us.

aiokafka logs why a broker could not be reached and then says only that none could. So a client
that fails to connect asks here: one more connection is tried, for the reason of its failure.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from interest.errors import BadInput
from interest.settings import Settings
from interest.tls import TlsFiles, tls_problem

_PROBE_S: Final = 3.0
_PREFIX: Final = "INTEREST_KAFKA"
_PROTOCOL: Final = f"{_PREFIX}_SECURITY_PROTOCOL"


def kafka_options(settings: Settings) -> dict[str, Any]:
    """Give the keyword arguments that secure an aiokafka client of any kind.

    Raises:
        BadInput: the settings contradict each other, or a file cannot be used.
    """
    protocol = settings.kafka_security_protocol
    files = TlsFiles(
        _PREFIX, settings.kafka_ca_file, settings.kafka_cert_file, settings.kafka_key_file
    )
    options: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        options["ssl_context"] = files.context()
    elif files.given:
        raise BadInput(
            f"{' and '.join(files.given)} {_are(files.given)} set, but {_PROTOCOL} is {protocol}: "
            f"set it to {'SASL_SSL' if protocol.startswith('SASL') else 'SSL'} for TLS"
        )
    login = {"USER": settings.kafka_user, "PASSWORD": settings.kafka_password}
    if protocol.startswith("SASL"):
        missing = [f"{_PREFIX}_{name}" for name, value in login.items() if not value]
        if missing:
            raise BadInput(
                f"{_PROTOCOL} is {protocol}, but {' and '.join(missing)} {_are(missing)} not set"
            )
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_user
        options["sasl_plain_password"] = settings.kafka_password
    elif any(login.values()):
        given = [f"{_PREFIX}_{name}" for name, value in login.items() if value]
        raise BadInput(
            f"{' and '.join(given)} {_are(given)} set, but {_PROTOCOL} is {protocol}: set it to "
            f"{'SASL_SSL' if protocol == 'SSL' else 'SASL_SSL or SASL_PLAINTEXT'} for a login"
        )
    return options


def _are(names: list[str]) -> str:
    return "are" if len(names) > 1 else "is"


async def no_broker(settings: Settings, error: BaseException) -> str:
    """Say in one line why no broker could be used, and what to do about it.

    Args:
        error: what a client raised; used where a connection of our own tells nothing.
    """
    where = settings.kafka_bootstrap
    for address in where.split(","):
        reason = await _refusal(settings, address.strip())
        if reason:
            return f"Kafka at {address.strip()}: {reason}"
    return (
        f"no Kafka broker answers at {where} ({error}); start one, or set INTEREST_KAFKA_BOOTSTRAP"
    )


async def _refusal(settings: Settings, address: str) -> str:
    """Connect once; say why a broker that is there refuses us, or "" where none is."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not await _listens(host, int(port)):
        return ""
    options = kafka_options(settings)
    connection: AIOKafkaConnection | None = None
    try:
        async with asyncio.timeout(_PROBE_S):
            connection = await create_conn(
                host.strip("[]"), int(port), request_timeout_ms=int(_PROBE_S * 1000), **options
            )
            # Where a login is expected, a client without one is refused only now.
            await connection.send(MetadataRequest([]))
    except SaslAuthenticationFailed as error:
        return (
            f"the login of user {settings.kafka_user} by {settings.kafka_sasl_mechanism} is "
            f"refused ({_text(error)}); see {_PREFIX}_USER and {_PREFIX}_PASSWORD"
        )
    except UnsupportedSaslMechanismError:
        return f"it takes no login by {settings.kafka_sasl_mechanism}; see {_PREFIX}_SASL_MECHANISM"
    except IllegalSaslStateError:
        return f"it takes no login; see {_PROTOCOL}"
    except ssl.SSLError as error:
        return f"{tls_problem(error, _PREFIX)}, {_PROTOCOL} is {settings.kafka_security_protocol}"
    except (KafkaConnectionError, ConnectionResetError, asyncio.IncompleteReadError):
        return f"it closes the connection; {_expected(settings)}"
    except (ValueError, AssertionError):
        # How aiokafka tells of a broker that does not know the password either.
        return f"it cannot prove that it knows the password of user {settings.kafka_user}"
    except TimeoutError:
        # It may hang, or read the beginning of TLS as the length of a message to wait for.
        return (
            "no answer, though something listens there; is another protocol spoken? "
            f"{_PROTOCOL} is {settings.kafka_security_protocol}"
        )
    except (KafkaError, OSError):
        return ""
    finally:
        if connection is not None:
            connection.close()
    return ""


async def _listens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_PROBE_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _expected(settings: Settings) -> str:
    """Name what a broker may expect that hangs up without a word."""
    protocol = settings.kafka_security_protocol
    expected = [] if protocol.startswith("SASL") else ["a login"]
    if not protocol.endswith("SSL"):
        expected.append("TLS")
    elif settings.kafka_cert_file:
        expected.append("no TLS")
    else:
        expected.append(f"no TLS, or a certificate of ours ({_PREFIX}_CERT_FILE)")
    return f"it may expect {' or '.join(expected)}; {_PROTOCOL} is {protocol}"


def _text(error: KafkaError) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
