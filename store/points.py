"""What an item is in Qdrant; and what every item store refuses."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from interest.errors import BadInput, CorruptRecord
from interest.item import EncodedItem, Item, ItemQuery, ScoredItem
from interest.sparse import check_sparse

_NAMESPACE: Final = uuid.UUID("6f1d0b4e-6a0c-5b4f-9d63-2f1b6c9e7a10")
#: Payload fields with an index, and their Qdrant type.
INDEXED: Final[Mapping[str, str]] = {
    "categories": "keyword",
    "brand": "keyword",
    "domain": "keyword",
    "price": "float",
    "availability": "keyword",
}
#: What ``availability`` says of an item that can be recommended; stored collections hold the word.
AVAILABLE: Final = "available"
_WIDEST_TIE: Final = 1_000


def check_id(item_id: str) -> None:
    """Refuse an id that is no Unicode text: a shell's argument may hold any bytes.

    Raises:
        BadInput: it is none.
    """
    try:
        item_id.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"item id {item_id!r} is no valid Unicode text") from error


def point_id(item_id: str) -> str:
    """Give the id of an item's point: UUID version 5, since Qdrant takes no free text.

    Raises:
        BadInput: the id is no Unicode text.
    """
    check_id(item_id)
    return str(uuid.uuid5(_NAMESPACE, item_id))


def payload_of(item: Item) -> dict[str, Any]:
    """Give the payload: the whole item, and ``availability`` for the filters."""
    return {
        **msgspec.to_builtins(item),
        "availability": AVAILABLE if item.available else "unavailable",
    }


def item_of(payload: Mapping[str, Any] | None) -> Item:
    """Read an item back from a payload.

    Raises:
        CorruptRecord: somebody else wrote the point.
    """
    try:
        return msgspec.convert(payload, Item)
    except msgspec.ValidationError as error:
        raise CorruptRecord(f"a point in Qdrant is no item of ours: {error}") from error


def check_vectors(items: Iterable[EncodedItem], dim: int) -> None:
    """Refuse what an engine would take but could not be found by, or would poison it.

    Raises:
        BadInput: a vector of another length, with NaN or infinity, or zero; or a sparse one that
            is none.
    """
    for encoded in items:
        vector = encoded.vector
        if vector.shape != (dim,):
            raise BadInput(f"item {encoded.item.item_id}: {vector.shape}, expected ({dim},)")
        if not np.isfinite(vector).all() or not vector.any():
            raise BadInput(f"item {encoded.item.item_id}: its vector is zero or not finite")
        check_sparse(encoded.sparse, f"item {encoded.item.item_id}")


def next_limit(scores: Iterable[Sequence[float]], limit: int, k: int) -> int | None:
    """Tell with which limit to ask again, so that the item id decides a tie at place ``k``.

    An engine cuts among equal scores as it likes, and otherwise in every process: items of one
    title have one vector. None where no answer is cut within a tie, or the tie is too wide.

    Args:
        scores: of each answer, best first.
        limit: what the answers were cut at, at least ``k + 1``.
    """
    cut = any(len(answer) >= limit and answer[-1] == answer[k - 1] for answer in scores)
    widest = k + _WIDEST_TIE
    return min(4 * limit, widest) if cut and limit < widest else None


def merge(answers: Iterable[Iterable[tuple[Item, float]]], query: ItemQuery) -> list[ScoredItem]:
    """Merge the answers to several query vectors: an item's maximum counts, ties by item id."""
    best: dict[str, ScoredItem] = {}
    for answer in answers:
        for item, score in answer:
            held = best.get(item.item_id)
            if held is None or score > held.score:
                best[item.item_id] = ScoredItem(item=item, score=score)
    ranked = sorted(best.values(), key=lambda scored: (-scored.score, scored.item.item_id))
    return ranked[: query.k]
