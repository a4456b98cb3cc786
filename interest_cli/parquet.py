"""Parquet in and out; pyarrow is imported here alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from interest.errors import BadInput
from interest.event import Event
from interest.item import Item

_BATCH_ROWS: Final = 4096
_TEXT_FIELDS: Final = {
    Event: {"event_id", "user_id", "type", "item_id", "text", "session_id", "platform", "domain",
            "request_id", "model_id"},
    Item: {"item_id", "title", "description", "brand", "domain"},
}  # fmt: skip
# A decimal price becomes a JSON number, as a producer would write it.
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


class ParquetRecords:
    """The rows of a Parquet file as raw JSON records; nulls and NaN are absent fields.

    Raises:
        BadInput: here where the file is damaged, or has not the columns of the contract;
            while iterating where a row group is damaged.
    """

    def __init__(self, path: str, contract: type[Event] | type[Item]) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path}: damaged Parquet ({_line(error)}); write it again") from error
        schema = self._file.schema_arrow
        self.names: list[str] = list(schema.names)
        self.n_rows: int = self._file.metadata.num_rows
        fields = msgspec.structs.fields(contract)
        self._columns = [field.name for field in fields if field.name in self.names]
        for field in fields:
            if field.required and field.name not in self.names:
                raise BadInput(
                    f"{path}: no column {field.name}; the columns are {', '.join(self.names)}"
                )
        for name in self._columns:
            _check_type(path, name, schema.field(name).type, name in _TEXT_FIELDS[contract])

    def __iter__(self) -> Iterator[bytes]:
        row = 0
        with self._file:
            try:
                for batch in self._file.iter_batches(_BATCH_ROWS, columns=self._columns):
                    for values in _with_ms(batch).to_pylist():
                        row += 1
                        yield _encoder.encode(
                            {name: value for name, value in values.items() if value == value
                             and value is not None}
                        )  # fmt: skip
            except (pa.ArrowException, OSError) as error:
                raise BadInput(
                    f"{self._path}: damaged Parquet after row {row} ({_line(error)}); "
                    "write it again"
                ) from error


def _check_type(path: str, name: str, type_: Any, is_text: bool) -> None:
    value_type = type_.value_type if pa.types.is_dictionary(type_) else type_
    if is_text and not (
        pa.types.is_string(value_type)
        or pa.types.is_large_string(value_type)
        or pa.types.is_null(value_type)
    ):
        raise BadInput(f"{path}: column {name} is {type_}, expected string; cast it")
    if name == "ts" and (
        pa.types.is_date(value_type) or (pa.types.is_timestamp(value_type) and not value_type.tz)
    ):
        # Guessing a zone would shift every event by hours without a word.
        raise BadInput(
            f"{path}: column ts is {type_}, without a time zone; "
            "write a timestamp with a zone, or int64 Unix ms"
        )


def _with_ms(batch: Any) -> Any:
    """Give the batch with a ``ts`` of any timestamp unit as Unix ms."""
    index = batch.schema.get_field_index("ts")
    if index < 0 or not pa.types.is_timestamp(batch.schema.field(index).type):
        return batch
    zone = batch.schema.field(index).type.tz
    ms = batch.column(index).cast(pa.timestamp("ms", tz=zone), safe=False).cast(pa.int64())
    return batch.set_column(index, "ts", ms)


def _line(error: BaseException) -> str:
    """Give the first line of a library's message: its hints go on for several."""
    return next(iter(str(error).splitlines()), type(error).__name__)


VECTOR_SCHEMA: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("model_id", pa.string(), nullable=False),
        # Row by row, n_interests × dim numbers; empty for a cold user.
        pa.field("vector", pa.list_(pa.float32()), nullable=False),
        pa.field("n_interests", pa.int32(), nullable=False),
        pa.field("event_time_ms", pa.int64(), nullable=False),
        pa.field("n_events", pa.int32(), nullable=False),
        pa.field("window", pa.binary(), nullable=False),
    ]
)


def write_rows(path: Path, batches: Iterator[list[dict[str, Any]]], schema: Any) -> int:
    """Write batches of rows to a Parquet file and give their number.

    The file appears whole or not at all: it is written beside its place and then moved.

    Raises:
        BadInput: the folder is missing or cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    n_rows = 0
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for rows in batches:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
                n_rows += len(rows)
        partial.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or _line(error)}") from error
    finally:
        with suppress(OSError):  # where nothing could be written, nothing can be removed
            partial.unlink(missing_ok=True)
    return n_rows
