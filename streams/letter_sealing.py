"""Dead letters at rest: what a person may be known by is encrypted, what an operator counts is not.

The value is encrypted by itself. The errors' sentences, the original key and the original headers
go into one header, since a producer may have sent thousands. Reasons, times and the place of the
source record stay in the clear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from interest.errors import CorruptRecord
from interest.ports import Sealer
from interest.sealing import place
from streams.outbox import Record

_SEALED: Final = "sealed"
_PRIVATE: Final = frozenset({"detail", "first-detail", "key"})
_ORIGINAL: Final = "original-"

_Headers = tuple[tuple[str, bytes], ...]
_decoder = msgspec.msgpack.Decoder(_Headers)


def letters_sealed(topic: str, sealer: Sealer) -> Callable[[Record], Record]:
    """Give what an outbox does to each record: encrypt those of the dead letters' topic.

    At the door, so that no letter leaves in the clear, whoever wrote it.
    """

    def wrap(record: Record) -> Record:
        return seal_letter(record, sealer) if record.topic == topic else record

    return wrap


def seal_letter(record: Record, sealer: Sealer) -> Record:
    """Encrypt the record of a letter; without keys it stays as it is."""
    if not sealer.seals or record.value is None or record.key is None:
        return record
    context = place("dead-letter", record.topic, record.key)
    private = tuple(header for header in record.headers if _is_private(header[0]))
    public = (header for header in record.headers if not _is_private(header[0]))
    return msgspec.structs.replace(
        record,
        value=sealer.seal(record.value, context + b"value"),
        headers=(*public, (_SEALED, sealer.seal(msgspec.msgpack.encode(private), context))),
    )


def open_letter(record: Any, sealer: Sealer) -> tuple[_Headers, bytes]:
    """Give headers and value of a letter as they were before (aiokafka's ``ConsumerRecord``).

    Raises:
        CorruptRecord: it was changed.
        WrongKey: it is encrypted with a key that is not there.
    """
    headers: _Headers = tuple(record.headers)
    sealed = dict(headers).get(_SEALED)
    if sealed is None or record.key is None or record.value is None:
        return headers, record.value
    context = place("dead-letter", record.topic, record.key)
    private = sealer.open(sealed, context)
    value = sealer.open(record.value, context + b"value")
    try:
        opened = _decoder.decode(private)
    except msgspec.DecodeError as error:
        raise CorruptRecord(f"the private headers of a dead letter: {error}") from error
    return (*(header for header in headers if header[0] != _SEALED), *opened), value


def _is_private(name: str) -> bool:
    return name in _PRIVATE or name.startswith(_ORIGINAL)
