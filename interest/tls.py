"""TLS towards the services, from files that the settings name."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec

from interest.errors import BadInput


class TlsFiles(msgspec.Struct, frozen=True):
    """Files in PEM format; empty for none.

    Args:
        setting: what the variables of these files begin with, for error lines.
        ca: certificates that sign the server's; empty: those the system trusts.
        cert: our certificate, with the chain; it may hold the key too.
        key: key of ``cert``, not encrypted.
    """

    setting: str
    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def given(self) -> list[str]:
        """Name the variables that are set."""
        files = {"CA": self.ca, "CERT": self.cert, "KEY": self.key}
        return [f"{self.setting}_{name}_FILE" for name, path in files.items() if path]

    def context(self) -> ssl.SSLContext:
        """Give a context that checks the server's certificate and its host name.

        Raises:
            BadInput: a file cannot be read or holds something else; the line names its variable.
        """
        if self.key and not self.cert:
            raise BadInput(f"{self.setting}_KEY_FILE is set without {self.setting}_CERT_FILE")
        for name, path in (("CA", self.ca), ("CERT", self.cert), ("KEY", self.key)):
            if path:
                _check_readable(f"{self.setting}_{name}_FILE", path)
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except ssl.SSLError as error:
            raise BadInput(
                f"{self.setting}_CA_FILE {self.ca} holds no certificate in PEM format"
            ) from error
        if self.cert:
            self._load_own(context)
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        def refuse() -> str:
            # Without an answer OpenSSL would ask on the terminal.
            raise BadInput(
                f"the key in {self.key or self.cert} is encrypted; {self.setting}_KEY_FILE needs "
                "one that is not"
            )

        try:
            context.load_cert_chain(self.cert, self.key or None, password=refuse)
        except ssl.SSLError as error:
            raise BadInput(
                f"{self.setting}_CERT_FILE {self.cert} and {self.setting}_KEY_FILE "
                f"{self.key or '(not set)'} are no certificate and its key in PEM format "
                f"({error.reason or error})"
            ) from error


def tls_problem(error: BaseException, setting: str) -> str:
    """Say what is wrong where ``error``, or what caused it, is a failed TLS handshake; else "".

    Args:
        setting: what the variables of the files begin with.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is refused ({cause.verify_message}); see {setting}_CA_FILE"
        if isinstance(cause, ssl.SSLError):
            reason = cause.reason or str(cause)
            if "CERTIFICATE_REQUIRED" in reason or "ALERT" in reason:
                return f"it refuses our certificate or TLS ({reason}); see {setting}_CERT_FILE"
            return f"no TLS is spoken there ({reason})"
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _check_readable(variable: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise BadInput(f"{variable} {path} cannot be read: {error.strerror or error}") from error
