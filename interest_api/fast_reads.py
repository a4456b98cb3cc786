"""The two reads that shops make all day, answered before the framework looks at them.

A door for the usual request: a user's vector, and recommendations with nothing but ``k`` and
``exclude_seen``. Whatever else a request says or lacks (a filter, a parameter that is wrong, a key
that is not known) goes on to the routes of :mod:`interest_api.app`, which make the same bytes from
the same functions, and documents and explains everything.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from interest.errors import InterestError
from interest.event import MAX_ID_CHARS
from interest.item import ANY_ITEM, ItemFilter
from interest_api import problems
from interest_api.keys import ApiKeys
from interest_api.keys import Scope as KeyScope

MAX_K: Final = 500
USERS: Final = "/v1/users/"
VECTOR: Final = "/vector"
RECOMMENDATIONS: Final = "/recommendations"
_USUAL_QUERY: Final = re.compile(rb"(?:k=(\d{1,3}))?(?:(?:^|&)exclude_seen=(true|false))?")
_PRESENTED: Final = {b"x-api-key": b"", b"authorization": b"Bearer "}

VectorOf = Callable[[str], Awaitable[Response]]
RecommendationsFor = Callable[[str, int, bool, ItemFilter], Awaitable[Response]]


class Answered:
    """Names a route for the metrics, as Starlette does."""

    def __init__(self, path_format: str) -> None:
        self.path_format = path_format


_VECTOR_ROUTE: Final = Answered(f"{USERS}{{user_id}}{VECTOR}")
_RECOMMENDATIONS_ROUTE: Final = Answered(f"{USERS}{{user_id}}{RECOMMENDATIONS}")


class FastReads:
    """Answers the usual reads; everything else is the app's.

    Args:
        keys: as for the routes; a request whose key does not allow reading goes on to them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys | None,
        vector: VectorOf,
        recommendations: RecommendationsFor,
    ) -> None:
        self._app = app
        self._keys = keys
        self._vector = vector
        self._recommendations = recommendations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answer = self._answer(scope) if scope["type"] == "http" else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await answer
        except (problems.Unknown, InterestError) as error:
            response = problems.answer(error, scope["state"]["request_id"])
        await response(scope, receive, send)

    def _answer(self, scope: Scope) -> Awaitable[Response] | None:
        path: str = scope["path"]
        if scope["method"] != "GET" or not path.startswith(USERS) or not self._allows(scope):
            return None
        if path.endswith(VECTOR) and not scope["query_string"]:
            user_id = path[len(USERS) : -len(VECTOR)]
            if 0 < len(user_id) <= MAX_ID_CHARS:
                scope["route"] = _VECTOR_ROUTE
                return self._vector(user_id)
        elif path.endswith(RECOMMENDATIONS):
            user_id = path[len(USERS) : -len(RECOMMENDATIONS)]
            usual = _USUAL_QUERY.fullmatch(scope["query_string"])
            k = int(usual[1] or 10) if usual else 0
            if usual and 0 < len(user_id) <= MAX_ID_CHARS and 1 <= k <= MAX_K:
                scope["route"] = _RECOMMENDATIONS_ROUTE
                return self._recommendations(user_id, k, usual[2] != b"false", ANY_ITEM)
        return None

    def _allows(self, scope: Scope) -> bool:
        if not self._keys:
            return True
        presented = [
            value[len(start) :]
            for name, value in scope["headers"]
            if (start := _PRESENTED.get(name)) is not None and value.startswith(start)
        ]
        if len(presented) != 1:
            return False
        key = self._keys.find(presented[0].decode("latin-1"))
        if key is None or not key.allows(KeyScope.READ):
            return False
        scope["state"]["caller"] = key.name
        return True
