"""Certificates for tests: an authority of their own, a server's and a client's."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

_PLAIN = NoEncryption()


class Certificates(msgspec.Struct, frozen=True):
    """Paths of PEM files. ``*_both`` hold the key and the chain in one file."""

    ca: Path
    stranger_ca: Path
    server_both: Path
    elsewhere_both: Path
    client_cert: Path
    client_key: Path
    client_both: Path
    encrypted_key: Path


class _Authority:
    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self.cert = (
            self.begun(self.name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def begun(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=2))
        )

    def issue(
        self, name: str, *hosts: x509.GeneralName
    ) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self.begun(subject, key).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
            critical=False,
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        return _pem(builder.sign(self.key, hashes.SHA256())), key


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(Encoding.PEM)


def _key_pem(
    key: ec.EllipticCurvePrivateKey, encryption: KeySerializationEncryption = _PLAIN
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def make_certificates(folder: Path) -> Certificates:
    """Write a set of files; the server's name is 127.0.0.1 and localhost."""
    ours, strangers = _Authority("tests"), _Authority("strangers")
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")
    server, server_key = ours.issue("server", *here)
    elsewhere, elsewhere_key = ours.issue("elsewhere", x509.DNSName("elsewhere.invalid"))
    client, client_key = ours.issue("worker")
    contents = {
        "ca": _pem(ours.cert),
        "stranger_ca": _pem(strangers.cert),
        "server_both": _key_pem(server_key) + server,
        "elsewhere_both": _key_pem(elsewhere_key) + elsewhere,
        "client_cert": client,
        "client_key": _key_pem(client_key),
        "client_both": _key_pem(client_key) + client,
        "encrypted_key": _key_pem(client_key, BestAvailableEncryption(b"secret")),
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / f"{name}.pem"
        paths[name].write_bytes(content)
    return Certificates(**paths)
