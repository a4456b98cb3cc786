"""The routes of the read API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import jsonschema
import pytest

from interest.errors import BadInput, CorruptRecord, EncoderUnavailable, ServiceUnavailable
from interest.item import ItemFilter

if TYPE_CHECKING:
    from tests.unit.interest_api.conftest import FakeRecommender

ODD_IDS = [
    "a/b",
    "a/",
    "/",
    "vector",
    "x/vector",
    "ü 用户 %2F",
    "?k=1#",
    "two\nlines",
    "..",
    "a//b",
]


def path_of(kind: str, name: str, rest: str) -> str:
    return f"/v1/{kind}/{quote(name, safe='').replace('.', '%2E')}/{rest}"


def assert_problem(response: httpx.Response, status: int, says: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert says in problem["detail"]
    assert "Traceback" not in response.text
    return problem


async def test_a_vector_comes_with_its_times_its_age_and_its_token(
    client: httpx.AsyncClient,
) -> None:
    response = await client.get("/v1/users/u1/vector")
    assert response.status_code == 200
    assert response.json() == {
        "user_id": "u1", "model_id": "m1", "dim": 3, "vectors": [[1.0, 0.0, 0.0]],
        "n_events": 4, "event_time_ms": 1_700_000_000_000, "encode_time_ms": 1_700_000_000_040,
        "age_ms": 1500, "token": {"era": 1, "generation": 2, "revision": 3},
    }  # fmt: skip


async def test_a_user_without_a_record_is_not_found(client: httpx.AsyncClient) -> None:
    problem = assert_problem(await client.get("/v1/users/who/vector"), 404, "user 'who'")
    assert problem["type"] == "urn:interest:problem:unknown-user"


@pytest.mark.parametrize("name", ODD_IDS)
async def test_an_id_may_hold_any_character(
    client: httpx.AsyncClient, recommender: FakeRecommender, name: str
) -> None:
    recommender.users[name] = recommender.users["u1"]
    assert (await client.get(path_of("users", name, "vector"))).status_code == 200
    found = await client.get(path_of("users", name, "recommendations"))
    assert found.json()["user_id"] == name
    missing = await client.get(path_of("items", name, "similar"))
    assert_problem(missing, 404, f"no item {name!r}")


async def test_recommendations_carry_items_scores_basis_and_times(
    client: httpx.AsyncClient,
) -> None:
    body = (await client.get("/v1/users/u1/recommendations")).json()
    assert body["basis"] == "vector"
    assert (body["event_time_ms"], body["age_ms"]) == (1_700_000_000_000, 1500)
    assert body["items"] == [
        {"item_id": "kettle/1", "title": "A kettle", "score": 0.75, "brand": None,
         "categories": ["kitchen"], "price": 9.5, "domain": None}
    ]  # fmt: skip


async def test_parameters_reach_the_recommender(
    client: httpx.AsyncClient, recommender: FakeRecommender
) -> None:
    await client.get("/v1/users/u1/recommendations")
    await client.get(
        "/v1/users/u1/recommendations?k=3&exclude_seen=false&category=a%20b&brand=c&domain=d"
        "&min_price=1&max_price=2.5"
    )
    everything = ItemFilter(category="a b", brand="c", domain="d", min_price=1, max_price=2.5)
    assert recommender.asked == [("u1", 10, True, ItemFilter()), ("u1", 3, False, everything)]


async def test_a_cold_user_gets_popular_items_and_is_told_why(
    client: httpx.AsyncClient, recommender: FakeRecommender
) -> None:
    unknown = (await client.get("/v1/users/who/recommendations")).json()
    assert unknown["basis"] == "popular"
    assert unknown["note"] == "This user has no vector yet, so these are popular items."
    assert unknown["age_ms"] is None
    recommender.add_user("cold", n_interests=0)
    cold = (await client.get("/v1/users/cold/recommendations")).json()
    assert cold["note"].startswith("This user's behaviours give no direction yet")
    assert (await client.get("/v1/users/cold/vector")).json()["vectors"] == []


async def test_similar_items_of_an_item_with_a_slash(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/items/kettle/1/similar?k=1")).json()
    assert body["item_id"] == "kettle/1"
    assert len(body["items"]) == 1


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("k=0", "k: Input should be greater than or equal to 1, got '0'"),
        ("k=501", "k: Input should be less than or equal to 500"),
        ("k=many", "k: Input should be a valid integer"),
        ("exclude_seen=perhaps", "exclude_seen: Input should be a valid boolean"),
        ("category=", "category: String should have at least 1 character"),
        ("min_price=nan", "min_price: Input should be a finite number"),
        ("min_price=-1", "min_price: Input should be greater than or equal to 0"),
        ("min_price=3&max_price=2", "min_price 3 is greater than max_price 2"),
    ],
)
async def test_a_wrong_parameter_gives_one_clear_line(
    client: httpx.AsyncClient, query: str, says: str
) -> None:
    response = await client.get(f"/v1/users/u1/recommendations?{query}")
    problem = assert_problem(response, 422, says)
    assert "\n" not in problem["detail"]
    assert problem["type"] == "urn:interest:problem:invalid-request"


async def test_an_id_that_is_too_long_is_refused(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get(f"/v1/users/{'x' * 257}/vector"), 422, "at most 256 characters")


@pytest.mark.parametrize("path", ["/", "/v1/users//vector", "/v1/users/u1", "/v2/users/u1/vector"])
async def test_a_path_that_is_none_is_a_problem_too(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "Not Found")


async def test_another_method_is_a_problem_that_says_what_is_allowed(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post("/v1/users/u1/vector")
    assert_problem(response, 405, "Method Not Allowed")
    assert response.headers["allow"] == "GET"


@pytest.mark.parametrize("path", ["users/u1/vector", "users/u1/recommendations", "items/x/similar"])
@pytest.mark.parametrize("error", [ServiceUnavailable("Redis is away"), EncoderUnavailable("gone")])
async def test_a_service_that_is_away_is_503_with_retry_after(
    client: httpx.AsyncClient, recommender: FakeRecommender, path: str, error: Exception
) -> None:
    recommender.error = error
    response = await client.get(f"/v1/{path}")
    assert_problem(response, 503, str(error))
    assert response.headers["retry-after"] == "1"


async def test_input_that_the_recommender_refuses_is_the_callers_fault(
    client: httpx.AsyncClient, recommender: FakeRecommender
) -> None:
    recommender.error = BadInput("k is too much")
    assert_problem(await client.get("/v1/users/u1/recommendations"), 422, "k is too much")


@pytest.mark.parametrize("error", [CorruptRecord("secret bytes"), RuntimeError("secret bytes")])
async def test_a_fault_of_ours_is_a_plain_500_and_the_log_has_the_request_id(
    client: httpx.AsyncClient,
    recommender: FakeRecommender,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recommender.error = error
    response = await client.get("/v1/users/u1/vector", headers={"X-Request-ID": "call-7"})
    assert_problem(response, 500, "internal error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "call-7"
    assert "call-7" in caplog.text


@pytest.mark.parametrize("given", ["", "two words", "ä", "x" * 129])
async def test_a_request_without_a_sane_id_gets_one(client: httpx.AsyncClient, given: str) -> None:
    response = await client.get("/healthz", headers=[(b"X-Request-ID", given.encode())])
    assert len(response.headers["x-request-id"]) == 32


def _resolve(node: Any, root: dict[str, Any]) -> None:
    """Follow every reference of an OpenAPI document; a dangling one raises KeyError."""
    if isinstance(node, dict):
        if reference := node.get("$ref"):
            target: Any = root
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
        for value in node.values():
            _resolve(value, root)
    elif isinstance(node, list):
        for value in node:
            _resolve(value, root)


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/v1/users/u1/vector", "/v1/users/{user_id}/vector", "200"),
        ("/v1/users/who/vector", "/v1/users/{user_id}/vector", "404"),
        ("/v1/users/u1/recommendations", "/v1/users/{user_id}/recommendations", "200"),
        ("/v1/users/u1/recommendations?k=0", "/v1/users/{user_id}/recommendations", "422"),
        ("/v1/items/kettle/1/similar", "/v1/items/{item_id}/similar", "200"),
        ("/healthz", "/healthz", "200"),
        ("/readyz", "/readyz", "200"),
    ],
)
async def test_answers_are_what_openapi_says(
    client: httpx.AsyncClient, path: str, route: str, status: str
) -> None:
    document = (await client.get("/openapi.json")).json()
    _resolve(document, document)
    described = document["paths"][route]["get"]["responses"][status]["content"]
    response = await client.get(path)
    assert str(response.status_code) == status
    schema = described[response.headers["content-type"]]["schema"]
    jsonschema.validate(response.json(), schema | {"components": document["components"]})


async def test_openapi_describes_no_answer_that_does_not_exist(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert "HTTPValidationError" not in str(document)
    assert set(document["paths"]) == {
        "/v1/users/{user_id}/vector", "/v1/users/{user_id}/recommendations",
        "/v1/items/{item_id}/similar", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
