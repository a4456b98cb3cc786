"""What happens around every request: an id, its time by route, and the last resort."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interest import metrics as names
from interest.ports import Metrics
from interest_api.problems import INTERNAL, problem_response

HEADER: Final = "X-Request-ID"
_GOOD_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
logger = logging.getLogger(__name__)


class RequestMiddleware:
    """Takes or makes the request id, measures, and turns a crash into a plain 500.

    Logs the route, never the path: paths carry user ids.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get(HEADER, "")
        if not _GOOD_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("request %s to %s failed", request_id, _route(scope))
            if not answered:
                await problem_response(500, INTERNAL)(scope, receive, send_with_id)
        finally:
            self._metrics.observe(names.REQUESTS, time.perf_counter() - started, _route(scope))


def _route(scope: Scope) -> str:
    """Give the route's template: a label of few values, without ids."""
    return str(getattr(scope.get("route"), "path_format", "unmatched"))
