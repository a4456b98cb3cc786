"""The fields of a user's hash in Redis: the vector of each model, and the recent behaviours.

The layout is a contract: ``docs/contracts.md``, section Redis.
"""

from __future__ import annotations

from typing import Final

import msgspec

from interest.errors import BadInput, CorruptRecord
from interest.ports import RecentBehaviour, UserState, VectorUpdate
from interest.vector import (
    HEADER_BYTES,
    MAGIC,
    TOKEN_OFFSET,
    VectorHead,
    head_from_bytes,
    vector_from_bytes,
    vector_to_bytes,
)

RECENT_FIELD: Final = "recent"
_TOKEN_BYTES: Final = 16

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[RecentBehaviour, ...])


def fields_of(update: VectorUpdate) -> tuple[bytes, bytes]:
    """Give the model's field and the ``recent`` field of an upsert."""
    record = vector_to_bytes(update.vector)
    token = record[TOKEN_OFFSET : TOKEN_OFFSET + _TOKEN_BYTES]
    return record, token + _encoder.encode(update.recent)


def state_of(user_id: str, model_id: str, record: bytes, recent: bytes | None) -> UserState:
    """Read what readers see of a user.

    Raises:
        CorruptRecord: somebody else wrote a field.
    """
    try:
        vector = vector_from_bytes(record, user_id, model_id)
        return UserState(vector, _read_recent(recent) if recent else ())
    except BadInput as error:  # numbers that are no unit vector are as damaged as others
        raise CorruptRecord(f"the record of a user, model {model_id}: {error}") from error


def head_of(record: bytes | None) -> VectorHead | None:
    """Read token and encode time; a damaged record counts as none, as it does in the script.

    A later format of ours counts, so that it is not overwritten.
    """
    if record is None or len(record) < HEADER_BYTES or not record.startswith(MAGIC[:3]):
        return None
    return head_from_bytes(record)


def _read_recent(raw: bytes) -> tuple[RecentBehaviour, ...]:
    try:
        return _decoder.decode(raw[_TOKEN_BYTES:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"recent behaviours of {len(raw)} bytes: {error}") from error
