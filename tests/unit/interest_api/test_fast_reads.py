"""The door for usual reads gives what the routes give."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest

from interest.errors import CorruptRecord, ServiceUnavailable
from interest_api.app import create_app
from interest_api.keys import ApiKeys
from interest_api.metrics import PrometheusMetrics
from tests.unit.interest_api.conftest import NOW_MS

if TYPE_CHECKING:
    from tests.unit.interest_api.conftest import FakeRecommender

READ = "r" * 20
#: A parameter that no route knows is passed over by them, and makes a request unusual.
USUAL = [
    ("users/u1/vector", "?unusual=1"),
    ("users/who/vector", "?unusual=1"),
    (f"users/{quote('ü 用户/%2F', safe='')}/vector", "?unusual=1"),
    (f"users/{'x' * 256}/vector", "?unusual=1"),
    ("users/u1/recommendations", "?unusual=1"),
    ("users/u1/recommendations?k=3", "&unusual=1"),
    ("users/u1/recommendations?k=500&exclude_seen=false", "&unusual=1"),
    ("users/u1/recommendations?exclude_seen=true", "&unusual=1"),
    ("users/u1/vector/recommendations?k=1", "&unusual=1"),
]


@pytest.mark.parametrize(("path", "more"), USUAL)
@pytest.mark.parametrize(
    "error", [None, ServiceUnavailable("away"), CorruptRecord("bytes"), RuntimeError("ours")]
)
async def test_both_ways_give_the_same_answer(
    client: httpx.AsyncClient,
    recommender: FakeRecommender,
    path: str,
    more: str,
    error: Exception | None,
) -> None:
    recommender.error = error
    headers = {"X-Request-ID": "call-7"}
    fast = await client.get(f"/v1/{path}", headers=headers)
    slow = await client.get(f"/v1/{path}{more}", headers=headers)
    assert (fast.status_code, fast.content) == (slow.status_code, slow.content)
    assert dict(fast.headers) == dict(slow.headers)
    assert len(recommender.asked[::2]) == len(recommender.asked[1::2])
    assert recommender.asked[::2] == recommender.asked[1::2]


async def test_both_ways_count_under_the_same_route(
    client: httpx.AsyncClient, metrics: PrometheusMetrics
) -> None:
    for path in ("users/u1/vector", "users/u1/recommendations"):
        await client.get(f"/v1/{path}")
        await client.get(f"/v1/{path}?unusual=1")
    text = metrics.render()[0].decode()
    for end in ("vector", "recommendations"):
        route = f'route="/v1/users/{{user_id}}/{end}"'
        assert f"interest_http_request_seconds_count{{{route}}} 2.0" in text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {READ}"}, 200),
        ({"X-API-Key": READ}, 200),
        ({}, 401),
        ({"X-API-Key": "w" * 20}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": f"Basic {READ}"}, 401),
        ({"Authorization": f"Bearer {'w' * 20}", "X-API-Key": READ}, 401),
    ],
)
async def test_both_ways_ask_for_the_same_key(
    recommender: FakeRecommender,
    metrics: PrometheusMetrics,
    headers: dict[str, str],
    status: int,
) -> None:
    keys = ApiKeys.parse(f"shop:read:{READ}")
    app = create_app(recommender, metrics=metrics, keys=keys, clock=lambda: NOW_MS)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("users/u1/vector", "users/u1/vector?unusual=1"):
            answer = await client.get(f"/v1/{path}", headers=headers)
            assert answer.status_code == status
