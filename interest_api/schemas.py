"""What the HTTP API answers: one class is the response, its encoder and its OpenAPI schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Response
from msgspec import Meta

from interest.item import ScoredItem
from interest.ports import Recommendations
from interest.vector import UserVector

EventTime = Annotated[
    int | None,
    Meta(description="Event time of the newest event in the window, Unix ms; null without one."),
]
EncodeTime = Annotated[int | None, Meta(description="When the vector was encoded, Unix ms.")]
Age = Annotated[
    int | None,
    Meta(description="Now minus event time, ms; below 0 where a producer's clock runs ahead."),
]


class TokenBody(msgspec.Struct, frozen=True):
    """Orders the writes of one user's vector; compare field by field."""

    era: int
    generation: int
    revision: int


class VectorBody(msgspec.Struct, frozen=True, kw_only=True):
    """One user's vector of the live model. No ``vectors``: the user is cold."""

    user_id: str
    model_id: str
    dim: int
    vectors: Annotated[
        list[list[float]], Meta(description="Interests of unit length; the maximum dot counts.")
    ]
    n_events: Annotated[int, Meta(description="Events in the behaviour window.")]
    event_time_ms: EventTime
    encode_time_ms: EncodeTime
    age_ms: Age
    token: TokenBody


class ItemBody(msgspec.Struct, frozen=True, kw_only=True):
    """An item that was found; ``score`` compares within one answer, higher is better."""

    item_id: str
    title: str
    score: float
    brand: str | None = None
    categories: Sequence[str] = ()
    price: float | None = None
    domain: str | None = None


class RecommendationsBody(msgspec.Struct, frozen=True, kw_only=True):
    """Items for one user, best first, and what the answer rests on."""

    user_id: str
    basis: Literal["vector", "popular"]
    note: Annotated[str, Meta(description="The basis in a sentence for people.")]
    model_id: str
    event_time_ms: EventTime
    encode_time_ms: EncodeTime
    age_ms: Age
    items: list[ItemBody]


class SimilarBody(msgspec.Struct, frozen=True, kw_only=True):
    """The items nearest to one item, best first, without itself."""

    item_id: str
    items: list[ItemBody]


class StatusBody(msgspec.Struct, frozen=True):
    """All is well."""

    status: str = "ok"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Problem details after RFC 9457; ``reasons`` is ours, for /readyz."""

    type: str
    title: str
    status: int
    detail: str
    reasons: Sequence[str] = ()


BODIES: Final = (VectorBody, RecommendationsBody, SimilarBody, StatusBody, Problem)
_REFERENCE: Final = "#/components/schemas/{name}"


def json_response(body: msgspec.Struct) -> Response:
    """Give a 200 answer, encoded by msgspec."""
    return Response(msgspec.json.encode(body), media_type="application/json")


def schema_components() -> dict[str, Any]:
    """Generate the OpenAPI schemas of every body from the classes."""
    _, components = msgspec.json.schema_components(BODIES, ref_template=_REFERENCE)
    return components


def answers(body: type[msgspec.Struct], problems: Mapping[int, str]) -> dict[int | str, Any]:
    """Describe the answers of a route for OpenAPI; ``problems`` maps a status to its cause."""
    described: dict[int | str, Any] = {200: _content(body, "application/json", "The answer.")}
    for status, cause in problems.items():
        described[status] = _content(Problem, "application/problem+json", cause)
    return described


def _content(body: type[msgspec.Struct], media_type: str, description: str) -> dict[str, Any]:
    reference = {"$ref": _REFERENCE.format(name=body.__name__)}
    return {"description": description, "content": {media_type: {"schema": reference}}}


def vector_body(vector: UserVector, now_ms: int) -> VectorBody:
    """Show a user vector as readers see it."""
    # A window that lost all its events has no event time; 0 would read as the year 1970.
    event_time_ms = vector.event_time_ms or None
    return VectorBody(
        user_id=vector.user_id,
        model_id=vector.model_id,
        dim=vector.dim,
        vectors=vector.vectors.tolist(),
        n_events=vector.n_events,
        event_time_ms=event_time_ms,
        encode_time_ms=vector.encode_time_ms,
        age_ms=_age(event_time_ms, now_ms),
        token=TokenBody(*vector.token),
    )


def recommendations_body(found: Recommendations, now_ms: int) -> RecommendationsBody:
    """Show recommendations, with a sentence on what they rest on."""
    if found.basis == "vector":
        note = "The items nearest to this user's interests."
    elif found.encode_time_ms is None:
        note = "This user has no vector yet, so these are popular items."
    else:
        note = "This user's behaviours give no direction yet, so these are popular items."
    event_time_ms = found.event_time_ms or None
    return RecommendationsBody(
        user_id=found.user_id,
        basis=found.basis,
        note=note,
        model_id=found.model_id,
        event_time_ms=event_time_ms,
        encode_time_ms=found.encode_time_ms,
        age_ms=_age(event_time_ms, now_ms),
        items=item_bodies(found.items),
    )


def item_bodies(found: Sequence[ScoredItem]) -> list[ItemBody]:
    """Show items with their scores."""
    return [
        ItemBody(
            item_id=scored.item.item_id,
            title=scored.item.title,
            score=scored.score,
            brand=scored.item.brand,
            categories=scored.item.categories,
            price=scored.item.price,
            domain=scored.item.domain,
        )
        for scored in found
    ]


def _age(event_time_ms: int | None, now_ms: int) -> int | None:
    return None if event_time_ms is None else now_ms - event_time_ms
