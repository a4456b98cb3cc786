"""Why bytes that should be JSON cannot be read."""

from __future__ import annotations


def unreadable_reason(raw: bytes) -> str:
    """Give the reason code of bytes that are no JSON: ``not_utf8`` or ``malformed_json``.

    The bytes decide, not the type of the error: msgspec raises ``UnicodeDecodeError`` for them up
    to 0.21 and a plain ``DecodeError`` later.
    """
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    return "malformed_json"
