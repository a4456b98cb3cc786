"""What an operator's tools ask of every process: /healthz, /readyz and /metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from interest.errors import InterestError
from interest_api import problems
from interest_api.metrics import PrometheusMetrics
from interest_api.middleware import RequestMiddleware
from interest_api.schemas import StatusBody, answers, json_response

#: Returns when the thing works; otherwise raises, best an error with a clear line.
Check = Callable[[], Awaitable[None]]
#: A check that hangs is as bad as one that fails, and a probe does not wait for long.
CHECK_TIMEOUT_S: Final = 2.0
logger = logging.getLogger(__name__)


async def failing(checks: Mapping[str, Check]) -> list[str]:
    """Run the checks together; give ``name: reason`` of those that fail, in their order."""

    async def reason(name: str, check: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await check()
        except TimeoutError:
            return f"{name}: no answer in {CHECK_TIMEOUT_S:g} s"
        except InterestError as error:
            return f"{name}: {error}"
        except Exception as error:
            # Not ready is the right answer; what it was belongs in the log.
            logger.exception("the check %s failed", name)
            return f"{name}: {type(error).__name__}"
        return None

    found = await asyncio.gather(*(reason(name, check) for name, check in checks.items()))
    return [text for text in found if text is not None]


def add_operations(
    app: FastAPI,
    checks: Mapping[str, Check],
    metrics: PrometheusMetrics,
    *,
    metrics_guards: Sequence[Any] = (),
) -> None:
    """Add the three routes, error answers and the request middleware to an app.

    Args:
        metrics_guards: dependencies of /metrics; the other two are for probes, which have no keys.
    """
    problems.install(app)
    app.add_middleware(RequestMiddleware, metrics=metrics)

    @app.get(
        "/healthz",
        tags=["operations"],
        responses=answers(StatusBody, {}),
        response_class=Response,
    )
    async def healthz() -> Response:
        """Answer while the process lives; restart it when it does not."""
        return json_response(StatusBody())

    @app.get(
        "/readyz",
        tags=["operations"],
        responses=answers(StatusBody, {503: "Not ready; `reasons` says why."}),
        response_class=Response,
    )
    async def readyz() -> Response:
        """Answer 200 when the model is warm and the stores answer, else 503 with reasons."""
        reasons = await failing(checks)
        if reasons:
            return problems.unavailable("not ready: " + "; ".join(reasons), reasons)
        return json_response(StatusBody("ready"))

    @app.get(
        "/metrics",
        tags=["operations"],
        dependencies=metrics_guards,
        responses={200: {"description": "Prometheus text.", "content": {"text/plain": {}}}},
        response_class=Response,
    )
    async def metrics_text(request: Request) -> Response:
        """Give the metrics of this process for Prometheus."""
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})


def create_worker_app(checks: Mapping[str, Check], metrics: PrometheusMetrics) -> FastAPI:
    """Create the small app of a worker: health, readiness and metrics, nothing else."""
    app = FastAPI(title="interest worker", openapi_url=None, redirect_slashes=False)
    add_operations(app, checks, metrics)
    return app
