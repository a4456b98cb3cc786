"""The fields of a user's hash in Redis: the vector of each model, and the recent behaviours.

The layout is a contract: ``docs/contracts.md``, section Redis. Encrypted, a field keeps in the
clear what the scripts compare: the header of a vector, the token of recent behaviours.
"""

from __future__ import annotations

from typing import Final

import msgspec

from interest.errors import BadInput, CorruptRecord
from interest.ports import Sealer, UserState, VectorUpdate
from interest.recent import RecentBehaviour, recent_from_bytes
from interest.sealing import place
from interest.vector import (
    FLAGS_OFFSET,
    HEADER_BYTES,
    MAGIC,
    SEALED_FLAG,
    TOKEN_OFFSET,
    UserVector,
    VectorHead,
    head_from_bytes,
    vector_from_bytes,
    vector_to_bytes,
)

RECENT_FIELD: Final = "recent"
_TOKEN_BYTES: Final = 16
_ARRAY_OF_ONE: Final = 0x91
#: First bytes of MessagePack's binary values; a behaviour is an array.
_BINARY: Final = (0xC4, 0xC5, 0xC6)

_encoder = msgspec.msgpack.Encoder()
_sealed_decoder = msgspec.msgpack.Decoder(tuple[bytes])


class UserRecords:
    """Writes and reads the fields.

    Args:
        sealer: encrypts what is written, and opens what was encrypted; what is in the clear is
            read as well, so that encryption can be turned on.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def fields(self, update: VectorUpdate) -> tuple[bytes, bytes]:
        """Give the model's field and the ``recent`` field of an upsert."""
        record = vector_to_bytes(update.vector)
        token = record[TOKEN_OFFSET : TOKEN_OFFSET + _TOKEN_BYTES]
        recent = update.recent
        if not self._sealer.seals:
            return record, token + recent
        user_id, model_id = update.vector.user_id, update.vector.model_id
        header = bytearray(record[:HEADER_BYTES])
        header[FLAGS_OFFSET] |= SEALED_FLAG
        rows = self._sealer.seal(
            record[HEADER_BYTES:], place("vector", user_id, model_id, bytes(header))
        )
        sealed = self._sealer.seal(recent, place("recent", user_id, token))
        # An array again: by that the script tells a sound field from a damaged one.
        return bytes(header) + rows, token + _encoder.encode((sealed,))

    def state(self, user_id: str, model_id: str, record: bytes, recent: bytes | None) -> UserState:
        """Read what readers see of a user.

        Raises:
            CorruptRecord: somebody else wrote a field, or it does not open.
        """
        vector = self.vector(user_id, model_id, record)
        return UserState(vector, self._recent(user_id, recent) if recent else ())

    def vector(self, user_id: str, model_id: str, record: bytes) -> UserVector:
        """Read a model's field.

        Raises:
            CorruptRecord: somebody else wrote it, or it does not open.
        """
        try:
            return vector_from_bytes(self._opened(user_id, model_id, record), user_id, model_id)
        except BadInput as error:  # numbers that are no unit vector are as damaged as others
            raise CorruptRecord(f"the record of a user, model {model_id}: {error}") from error

    def _opened(self, user_id: str, model_id: str, record: bytes) -> bytes:
        if len(record) < HEADER_BYTES or not record[FLAGS_OFFSET] & SEALED_FLAG:
            return record
        header = record[:HEADER_BYTES]
        rows = self._sealer.open(record[HEADER_BYTES:], place("vector", user_id, model_id, header))
        clear = bytearray(header)
        clear[FLAGS_OFFSET] &= ~SEALED_FLAG
        return bytes(clear) + rows

    def _recent(self, user_id: str, raw: bytes) -> tuple[RecentBehaviour, ...]:
        token, array = raw[:_TOKEN_BYTES], raw[_TOKEN_BYTES:]
        if len(array) > 1 and array[0] == _ARRAY_OF_ONE and array[1] in _BINARY:
            try:
                [sealed] = _sealed_decoder.decode(array)
            except msgspec.DecodeError as error:
                raise CorruptRecord(f"recent behaviours of {len(raw)} bytes: {error}") from error
            array = self._sealer.open(sealed, place("recent", user_id, token))
        return recent_from_bytes(array)


def head_of(record: bytes | None) -> VectorHead | None:
    """Read token and encode time; a damaged record counts as none, as it does in the script.

    A later format of ours counts, so that it is not overwritten.
    """
    if record is None or len(record) < HEADER_BYTES or not record.startswith(MAGIC[:3]):
        return None
    return head_from_bytes(record)
