"""Health, readiness and metrics, of the API and of a worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from interest.errors import ServiceUnavailable
from interest_api.metrics import PrometheusMetrics
from interest_api.operations import create_worker_app, failing

if TYPE_CHECKING:
    from tests.unit.interest_api.conftest import FakeRecommender


async def fine() -> None:
    """Pass."""


async def away() -> None:
    raise ServiceUnavailable("nobody answers at localhost:1")


async def crashes() -> None:
    raise ValueError("not for the public")


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_the_process_is_healthy_also_when_a_store_is_away(
    client: httpx.AsyncClient, recommender: FakeRecommender
) -> None:
    recommender.error = ServiceUnavailable("Redis is away")
    assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_the_api_is_ready_only_while_the_stores_answer(
    client: httpx.AsyncClient, recommender: FakeRecommender
) -> None:
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    recommender.error = ServiceUnavailable("no live model is set")
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["reasons"] == ["stores: no live model is set"]


async def test_every_failing_check_gives_its_reason_and_a_hanging_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("interest_api.operations.CHECK_TIMEOUT_S", 0.01)
    checks = {"model": fine, "redis": away, "items": hangs, "kafka": crashes}
    assert await failing(checks) == [
        "redis: nobody answers at localhost:1", "items: no answer in 0.01 s", "kafka: ValueError",
    ]  # fmt: skip


async def test_a_worker_answers_the_same_three_routes(metrics: PrometheusMetrics) -> None:
    transport = httpx.ASGITransport(create_worker_app({"kafka": away}, metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/healthz")).status_code == 200
        assert "kafka: nobody answers" in (await client.get("/readyz")).json()["detail"]
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/v1/users/u1/vector")).status_code == 404


async def test_requests_are_measured_by_route_and_never_by_id(
    client: httpx.AsyncClient, metrics: PrometheusMetrics
) -> None:
    for path in ("/v1/users/u1/vector", "/v1/users/who/vector", "/nowhere/u1", "/healthz"):
        await client.get(path)
    counts = {
        sample.labels["route"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "interest_http_request_seconds_count"
    }
    assert counts == {"/v1/users/{user_id}/vector": 2, "unmatched": 1, "/healthz": 1}


async def test_metrics_come_as_prometheus_text_or_openmetrics(client: httpx.AsyncClient) -> None:
    plain = await client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    modern = await client.get("/metrics", headers=accept)
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")
