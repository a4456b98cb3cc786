"""Keys of the API: what they open, what they do not, and where none are allowed to be missing."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from fastapi import Depends

from interest import metrics as m
from interest.errors import BadInput
from interest.settings import Settings
from interest_api.app import create_app
from interest_api.keys import ApiKeys, Scope, guard, is_loopback, keys_of
from interest_api.metrics import PrometheusMetrics
from interest_api.operations import create_worker_app
from tests.unit.interest_api.conftest import FakeRecommender

READ = "r" * 32
ADMIN = "a" * 32
KEYS = f"shop:read:{READ}\n# a comment, with a comma\n\n ops:admin:{ADMIN} ,"
GUARDED = ["/v1/users/u1/vector", "/v1/users/u1/recommendations", "/v1/items/kettle%2F1/similar"]


def keyed(metrics: PrometheusMetrics, keys: str = KEYS) -> httpx.AsyncClient:
    parsed = ApiKeys.parse(keys)
    app = create_app(FakeRecommender(), metrics=metrics, keys=parsed)

    @app.delete("/v1/things", dependencies=[Depends(guard(parsed, Scope.ADMIN, metrics))])
    async def remove() -> str:
        return "removed"

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", [*GUARDED, "/metrics"])
async def test_a_key_opens_what_is_closed_without_one(
    metrics: PrometheusMetrics, path: str
) -> None:
    async with keyed(metrics) as client:
        refused = await client.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["title"] == "Unauthorized"
        assert "X-API-Key" in refused.json()["detail"]
        for headers in (bearer(READ), {"X-API-Key": READ}, bearer(ADMIN)):
            assert (await client.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        bearer("x" * 32),
        bearer(READ + "r"),
        bearer(READ[:-1]),
        {"X-API-Key": "ü" * 32},
        {"X-API-Key": ""},
        {"Authorization": f"Basic {READ}"},
        {"X-API-Key": f"shop:read:{READ}"},
    ],
)
async def test_other_keys_are_refused_and_not_repeated(
    metrics: PrometheusMetrics, headers: dict[str, str]
) -> None:
    async with keyed(metrics) as client:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        refused = await client.get(GUARDED[0], headers=raw)
    assert refused.status_code == 401
    assert READ not in refused.text


async def test_a_caller_without_a_key_learns_nothing_of_parameters(
    metrics: PrometheusMetrics,
) -> None:
    async with keyed(metrics) as client:
        assert (await client.get(f"{GUARDED[1]}?k=nonsense")).status_code == 401


async def test_a_reading_key_does_not_administer(metrics: PrometheusMetrics) -> None:
    async with keyed(metrics) as client:
        refused = await client.delete("/v1/things", headers=bearer(READ))
        assert refused.status_code == 403
        assert refused.json()["detail"] == "the key shop does not allow this: admin is needed"
        assert (await client.delete("/v1/things", headers=bearer(ADMIN))).json() == "removed"
        assert (await client.delete("/v1/things")).status_code == 401
    text, _ = metrics.render()
    for status in ("401", "403"):
        assert f'{m.UNAUTHORISED}{{status="{status}"}} 1.0' in text.decode()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
async def test_probes_and_documentation_need_no_key(metrics: PrometheusMetrics, path: str) -> None:
    async with keyed(metrics) as client:
        assert (await client.get(path)).status_code == 200


async def test_the_documentation_says_where_a_key_is_needed(metrics: PrometheusMetrics) -> None:
    async with keyed(metrics) as client:
        keyed_document: dict[str, Any] = (await client.get("/openapi.json")).json()
    async with keyed(metrics, keys="") as client:
        open_document: dict[str, Any] = (await client.get("/openapi.json")).json()
    route = keyed_document["paths"]["/v1/users/{user_id}/vector"]["get"]
    assert {name for schemes in route["security"] for name in schemes} == {
        "HTTPBearer",
        "APIKeyHeader",
    }
    assert {"401", "403"} <= set(route["responses"])
    assert "security" not in keyed_document["paths"]["/healthz"]["get"]
    assert "security" not in open_document["paths"]["/v1/users/{user_id}/vector"]["get"]


async def test_without_keys_everything_is_open(client: httpx.AsyncClient) -> None:
    for path in [*GUARDED, "/metrics"]:
        assert (await client.get(path)).status_code == 200


async def test_a_worker_s_metrics_need_no_key(metrics: PrometheusMetrics) -> None:
    transport = httpx.ASGITransport(create_worker_app({}, metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (READ, "entry 1: expected `name:read:key`"),
        (f"shop:read:{READ}, ops:root:{ADMIN}", "entry 2: expected `name:read:key`"),
        (f"sh op:read:{READ}", "entry 1"),
        ("shop:read:", "entry 1"),
        ("shop:read:short", "the key of shop needs at least 16"),
        (f"shop:read:{READ} x", "the key of shop"),
        (f"shop:read:{READ},shop:admin:{ADMIN}", "the name of shop comes twice"),
        (f"shop:read:{READ},other:admin:{READ}", "the key of shop comes twice"),
    ],
)
def test_malformed_keys_are_one_line_without_the_key(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        ApiKeys.parse(text)
    for secret in (READ, ADMIN, "short"):
        assert secret not in str(caught.value)


def test_a_key_is_not_kept() -> None:
    keys = ApiKeys.parse(KEYS)
    found = keys.find(READ)
    assert found is not None
    assert (found.name, found.scope) == ("shop", Scope.READ)
    assert READ not in repr(found)
    assert READ.encode() not in found.digest


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("192.0.2.1", False),
        ("no-such-host.invalid", False),
    ],
)  # fmt: skip
def test_only_loopback_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_a_public_address_without_keys_is_refused(host: str) -> None:
    with pytest.raises(BadInput, match="INTEREST_API_KEYS") as caught:
        keys_of(Settings(api_host=host))
    assert "INTEREST_API_OPEN=true" in str(caught.value)


def test_a_public_address_is_fine_with_keys_or_where_something_guards_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert keys_of(Settings(api_host="0.0.0.0", api_keys=KEYS))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert not keys_of(Settings(api_host="0.0.0.0", api_open=True))
    assert "asks for no key" in caplog.text
    assert not keys_of(Settings())
