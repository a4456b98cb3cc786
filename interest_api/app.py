"""The read API: vectors, recommendations and similar items over the port ``Recommender``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Response
from starlette.convertors import Convertor, register_url_convertor

from interest.bundle import RetrievalPath
from interest.clock import Clock, system_clock
from interest.errors import BadInput
from interest.event import MAX_ID_CHARS
from interest.item import ItemFilter
from interest.ports import Recommender
from interest_api.fast_reads import MAX_K, FastReads
from interest_api.keys import ApiKeys, Scope, guard
from interest_api.metrics import PrometheusMetrics
from interest_api.operations import Check, add_operations
from interest_api.problems import Unknown
from interest_api.schemas import (
    RecommendationsBody,
    SimilarBody,
    VectorBody,
    answers,
    item_bodies,
    json_response,
    recommendations_body,
    schema_components,
    vector_body,
)


class _IdConvertor(Convertor[str]):
    """Any id, also one with slashes or line breaks: the route's last word ends it."""

    regex = r"(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _IdConvertor())

Id = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_ID_CHARS,
        description="May hold any character; percent-encode `/`, `?`, `#`, `%` and dot segments.",
    ),
]
K = Annotated[int, Query(ge=1, le=MAX_K, description="How many items at most.")]
Word = Annotated[str | None, Query(min_length=1, max_length=MAX_ID_CHARS)]
Price = Annotated[float | None, Query(ge=0, allow_inf_nan=False)]


def _item_filter(
    category: Word = None,
    brand: Word = None,
    domain: Word = None,
    min_price: Price = None,
    max_price: Price = None,
) -> ItemFilter:
    if min_price is not None and max_price is not None and min_price > max_price:
        raise BadInput(f"min_price {min_price:g} is greater than max_price {max_price:g}")
    return ItemFilter(
        category=category, brand=brand, domain=domain, min_price=min_price, max_price=max_price
    )


Where = Annotated[ItemFilter, Depends(_item_filter)]

_COMMON: Final = {
    422: "A parameter is wrong; `detail` says which.",
    503: "A store is away, or no live model is set; try again after `Retry-After`.",
}
_KEYED: Final = {
    401: "No API key, or one that is not known.",
    403: "The API key does not allow this.",
}


class _Api(FastAPI):
    """FastAPI whose schemas come from the msgspec classes that are sent."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = super().openapi()
            schema.setdefault("components", {})["schemas"] = schema_components()
        assert self.openapi_schema is not None
        return self.openapi_schema


def create_app(
    recommender: Recommender,
    *,
    metrics: PrometheusMetrics,
    checks: Mapping[str, Check] | None = None,
    keys: ApiKeys | None = None,
    clock: Clock = system_clock,
) -> FastAPI:
    """Create the read API.

    Args:
        checks: what must work besides the recommender's stores before /readyz says so.
        keys: one that allows reading is asked for on every route but /healthz, /readyz and the
            documentation; None or no keys asks for none.
        clock: ages are taken against it.
    """
    app = _Api(
        title="interest-updater",
        version="1",
        summary="Fresh user interest vectors, and what to recommend from them.",
        redirect_slashes=False,  # an id may end with a slash
    )

    async def vector_of(user_id: str) -> Response:
        vector = await recommender.user(user_id)
        if vector is None:
            raise Unknown("user", f"the live model has no vector of user {user_id!r}")
        return json_response(vector_body(vector, clock()))

    async def recommendations_for(
        user_id: str,
        k: int,
        exclude_seen: bool,
        where: ItemFilter,
        path: RetrievalPath | None = None,
    ) -> Response:
        found = await recommender.recommend(
            user_id, k, exclude_seen=exclude_seen, where=where, path=path
        )
        return json_response(recommendations_body(found, clock()))

    # Inside of what add_operations puts around every request.
    app.add_middleware(FastReads, keys=keys, vector=vector_of, recommendations=recommendations_for)
    guards = [Depends(guard(keys, Scope.READ, metrics))] if keys else []
    common = {**_COMMON, **(_KEYED if keys else {})}
    add_operations(
        app, {"stores": recommender.ping, **(checks or {})}, metrics, metrics_guards=guards
    )
    reading = APIRouter(dependencies=guards, redirect_slashes=False)

    @reading.get(
        "/v1/users/{user_id:id}/vector",
        tags=["users"],
        responses=answers(VectorBody, {404: "No record of this user.", **common}),
        response_class=Response,
    )
    async def user_vector(user_id: Id) -> Response:
        """Read one user's vector of the live model, and how old it is."""
        return await vector_of(user_id)

    @reading.get(
        "/v1/users/{user_id:id}/recommendations",
        tags=["users"],
        responses=answers(RecommendationsBody, common),
        response_class=Response,
    )
    async def recommendations(
        user_id: Id,
        where: Where,
        k: K = 10,
        exclude_seen: Annotated[
            bool, Query(description="Leave out the items in the user's behaviour window.")
        ] = True,
        path: Annotated[
            RetrievalPath | None,
            Query(description="How items are found, instead of the way that is set."),
        ] = None,
    ) -> Response:
        """Recommend items, best first; a cold user gets popular items and is told so."""
        return await recommendations_for(user_id, k, exclude_seen, where, path)

    @reading.get(
        "/v1/items/{item_id:id}/similar",
        tags=["items"],
        responses=answers(SimilarBody, {404: "No such item.", **common}),
        response_class=Response,
    )
    async def similar(item_id: Id, where: Where, k: K = 10) -> Response:
        """Find the items nearest to an item, best first, without itself."""
        found = await recommender.similar(item_id, k, where=where)
        if found is None:
            raise Unknown("item", f"there is no item {item_id!r}")
        return json_response(SimilarBody(item_id=item_id, items=item_bodies(found)))

    app.include_router(reading)
    return app
