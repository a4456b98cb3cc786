"""Errors as callers see them: problem details (RFC 9457), one clear line, never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from interest.errors import (
    BadInput,
    CorruptRecord,
    EncoderUnavailable,
    InterestError,
    ServiceUnavailable,
)
from interest_api.schemas import Problem

#: Seconds after which a caller may try again when a service is away.
RETRY_AFTER_S: Final = 1
INTERNAL: Final = "an internal error; the log has it under the X-Request-ID of this answer"
_TYPE: Final = "urn:interest:problem:"
logger = logging.getLogger(__name__)


class Unknown(Exception):
    """There is no such user or item; ``what`` is ``user`` or ``item``."""

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(detail)
        self.what = what


def problem_response(
    status: int,
    detail: str,
    kind: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    reasons: Sequence[str] = (),
) -> Response:
    """Give an answer with problem details.

    Args:
        kind: a stable name for programs, the end of ``type``; without it the status says all.
    """
    problem = Problem(
        type=_TYPE + kind if kind else "about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        reasons=reasons,
    )
    return Response(
        msgspec.json.encode(problem), status, headers, media_type="application/problem+json"
    )


def unavailable(detail: str, reasons: Sequence[str] = ()) -> Response:
    """Give 503 with Retry-After."""
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return problem_response(503, detail, "unavailable", headers=headers, reasons=reasons)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with problem details.

    What no handler here knows is caught by the request middleware.
    """
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(Unknown, _on_ours)
    app.add_exception_handler(InterestError, _on_ours)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_response(error.status_code, str(error.detail), headers=error.headers)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    lines = [
        f"{'.'.join(str(part) for part in wrong['loc'][1:]) or 'request'}: {wrong['msg']}, "
        f"got {str(wrong['input'])[:100]!r}"
        for wrong in error.errors()
    ]
    return problem_response(422, "; ".join(lines), "invalid-request")


async def _on_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unknown | InterestError)
    return answer(error, getattr(request.state, "request_id", "-"))


def answer(error: Unknown | InterestError, request_id: str) -> Response:
    """Give what a caller sees of an error of ours; log what is no caller's business."""
    match error:
        case Unknown():
            return problem_response(404, str(error), f"unknown-{error.what}")
        case ServiceUnavailable() | EncoderUnavailable():
            return unavailable(str(error))
        case BadInput() if not isinstance(error, CorruptRecord):
            return problem_response(422, str(error), "invalid-request")
    # Stored bytes that are wrong are not the caller's fault.
    logger.error("request %s: %s", request_id, error)
    return problem_response(500, INTERNAL)
