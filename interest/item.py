"""Items of the catalogue, their encoded form, and typed queries for them."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from interest.errors import BadInput, CorruptRecord, InvalidItem
from interest.event import Id, Label
from interest.sparse import EMPTY, SparseVector, check_sparse, sparse_from_bytes, sparse_to_bytes
from interest.unreadable import unreadable_reason

MAX_DESCRIPTION_CHARS: Final = 65_536
_FORMAT: Final = 1


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item as the catalogue publishes it: JSON on Kafka, key = ``item_id``, null removes it.

    ``price`` is in the shop's own currency. ``image_vector`` is optional and of any length;
    it is kept for later use. An item with ``available`` false is known but not recommended.
    """

    item_id: Id
    title: Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"\S")]
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION_CHARS)] = ""
    brand: Label | None = None
    categories: Annotated[tuple[Label, ...], Meta(max_length=64)] = ()
    price: Annotated[float, Meta(ge=0)] | None = None
    domain: Label | None = None
    image_vector: Annotated[tuple[float, ...], Meta(max_length=4096)] | None = None
    available: bool = True
    schema: Annotated[int, Meta(ge=1, le=2**31)] = 1

    @property
    def text(self) -> str:
        """Title and description, as a language model reads them."""
        return f"{self.title}\n{self.description}" if self.description else self.title


class EncodedItem(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An item with its unit-length vector, float32 of shape (dim,), and a sparse one beside it."""

    item: Item
    vector: NDArray[np.float32]
    sparse: SparseVector = EMPTY


class ItemFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What an item must satisfy to be found; absent conditions do not restrict."""

    category: str | None = None
    brand: str | None = None
    domain: str | None = None
    min_price: float | None = None
    max_price: float | None = None
    only_available: bool = True


#: Every item that is available.
ANY_ITEM: Final = ItemFilter()


class ItemQuery(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Ask for the ``k`` items nearest to any of ``vectors``, float32 of shape (n, dim), n ≥ 1.

    Rows have unit length, so dot equals cosine; with several rows the maximum counts. Where
    ``sparse`` holds numbers, its dot product with an item's sparse vector is added to that. Items
    in ``exclude`` are never returned.
    """

    vectors: NDArray[np.float32]
    sparse: SparseVector = EMPTY
    k: int = 10
    exclude: frozenset[str] = frozenset()
    filter: ItemFilter = ANY_ITEM

    def __post_init__(self) -> None:
        if self.k < 1:
            raise BadInput(f"k is {self.k}, expected at least 1")
        if self.vectors.ndim != 2 or not len(self.vectors):
            raise BadInput(f"query vectors of shape {self.vectors.shape}, expected (n, dim)")
        if not np.isfinite(self.vectors).all() or not self.vectors.any(axis=1).all():
            raise BadInput("a query vector is zero or holds NaN or infinity")
        check_sparse(self.sparse, "a query")


class ScoredItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item that was found, with its score (higher is better)."""

    item: Item
    score: float


_decoder = msgspec.json.Decoder(Item)
_encoder = msgspec.json.Encoder()


def decode_item(raw: bytes) -> Item:
    """Decode and validate one catalogue message.

    Raises:
        InvalidItem: with one of the reason codes ``not_utf8``, ``malformed_json``,
            ``missing_title``, ``schema``.
    """
    try:
        return _decoder.decode(raw)
    except msgspec.ValidationError as error:
        reason = "missing_title" if "title" in str(error) else "schema"
        raise InvalidItem(reason, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidItem(unreadable_reason(raw), str(error)) from error


def encode_item(item: Item) -> bytes:
    """Give the JSON bytes of an item, absent fields left out."""
    return _encoder.encode(item)


def item_digest(item: Item) -> bytes:
    """Digest 16 bytes of an item's content: tells whether a catalogue message changes it."""
    return hashlib.blake2b(_encoder.encode(item), digest_size=16).digest()


def item_json_schema() -> dict[str, Any]:
    """Generate the JSON Schema (draft 2020-12) of the catalogue contract from the class."""
    return msgspec.json.schema(Item)


def unit(vector: NDArray[Any]) -> NDArray[np.float32]:
    """Scale the last axis to unit length, in float64 inside; a zero row stays zero."""
    wide = np.asarray(vector, dtype=np.float64)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: NDArray[np.float64] = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)
    return scaled.astype(np.float32)


class _StoredItem(msgspec.Struct, array_like=True, omit_defaults=True):
    format: int
    item: Item
    vector: bytes
    sparse: bytes = b""


_stored_encoder = msgspec.msgpack.Encoder()
_stored_decoder = msgspec.msgpack.Decoder(_StoredItem)


def encoded_item_to_bytes(encoded: EncodedItem) -> bytes:
    """Give the ``items-encoded`` record: MessagePack [format, item, vector, sparse vector].

    The vector is float32, little-endian; the last entry is left out where it is empty.
    """
    vector = np.ascontiguousarray(encoded.vector, dtype="<f4").tobytes()
    sparse = sparse_to_bytes(encoded.sparse)
    return _stored_encoder.encode(_StoredItem(_FORMAT, encoded.item, vector, sparse))


def encoded_item_from_bytes(raw: bytes) -> EncodedItem:
    """Read an ``items-encoded`` record back.

    Raises:
        CorruptRecord: other bytes, another format, or a vector that is not of unit length.
    """
    try:
        stored = _stored_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"encoded item of {len(raw)} bytes: {error}") from error
    if stored.format != _FORMAT or len(stored.vector) % 4:
        raise CorruptRecord(f"encoded item of format {stored.format}, expected {_FORMAT}")
    vector = np.frombuffer(stored.vector, "<f4").astype(np.float32)
    if not math.isclose(float(np.linalg.norm(vector)), 1.0, abs_tol=1e-2):
        raise CorruptRecord(f"encoded item {stored.item.item_id}: its vector has no unit length")
    return EncodedItem(item=stored.item, vector=vector, sparse=sparse_from_bytes(stored.sparse))
