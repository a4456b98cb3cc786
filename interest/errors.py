"""Errors that a person or a caller can act on.

    InterestError                 one clear line; the CLI prints it and exits
    ├── BadInput                  what was given is wrong; retrying is useless       (exit 2)
    │   ├── InvalidEvent          carries a reason code; becomes a dead letter
    │   ├── InvalidItem           carries a reason code; becomes a dead letter
    │   ├── CorruptRecord         stored bytes that are not what they should be
    │   └── WrongKey              stored bytes that need another encryption key: they are sound
    ├── ServiceUnavailable        a broker, Redis, Qdrant or a child process is away (exit 3)
    ├── EncoderUnavailable        a model cannot be loaded, or its device failed     (exit 3)
    └── TopicMismatch             topics on the broker do not fit together           (exit 4)

A foreign error is translated where its library is adapted, with ``raise … from``.
"""

from __future__ import annotations


class InterestError(Exception):
    """Base of every error this project raises on purpose; its text is one line for a person."""

    exit_code = 1


class BadInput(InterestError):
    """What was given is wrong, and giving it again will not help."""

    exit_code = 2


class InvalidEvent(BadInput):
    """An event breaks the contract; ``reason`` is a stable code for dead letters."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidItem(InvalidEvent):
    """A catalogue message breaks the contract."""


class CorruptRecord(BadInput):
    """Stored bytes have another format, length or checksum than they should."""


class WrongKey(BadInput):
    """Stored bytes are encrypted with a key that the settings do not hold.

    No ``CorruptRecord``: what is damaged may be passed over, but these bytes are what they
    should be, and passing them over would lose them.
    """


class ServiceUnavailable(InterestError):
    """A service is away, or refuses; nothing was stored, a retry is safe."""

    exit_code = 3


class EncoderUnavailable(InterestError):
    """A model cannot be loaded or its device failed; nothing was stored, a retry is safe."""

    exit_code = 3


class TopicMismatch(InterestError):
    """The broker's topics do not fit together, so running would corrupt windows."""

    exit_code = 4
