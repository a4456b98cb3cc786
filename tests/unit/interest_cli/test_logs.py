"""What reaches a log: no user id and no secret, whatever goes wrong."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator

import pytest

from interest_cli.logs import Formatter
from tests.unit.test_architecture import modules

#: Names of what is a user's id, or holds one.
_PERSONAL = {
    "user_id", "subject_id", "subject", "user", "users", "key", "keys", "raw", "value", "event",
    "record", "records", "window", "marker", "tombstone", "path", "redis_url", "qdrant_url",
    "settings", "password",
}  # fmt: skip
_LOGGERS = {"log", "logger"}
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def formatted(error: BaseException) -> str:
    record = logging.LogRecord(
        "streams", logging.ERROR, __file__, 1, "failed", (), (type(error), error, None)
    )
    return Formatter("%(message)s").format(record)


def raised(inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            raise ValueError("outer") from error
    except ValueError as error:
        return error


class Missing(KeyError):
    """A lookup error of a library."""


@pytest.mark.parametrize(
    "error",
    [
        KeyError("alice"),
        KeyError(("alice", 3)),
        Missing("alice"),
        raised(KeyError("alice")),
        ExceptionGroup("several", [OSError("x"), KeyError("alice")]),
        raised(ExceptionGroup("several", [raised(KeyError("alice"))])),
    ],
)
def test_a_traceback_does_not_show_the_key_that_was_not_found(error: BaseException) -> None:
    text = formatted(error)
    assert "alice" not in text
    assert "is not logged" in text


def test_a_traceback_shows_the_text_of_other_errors_and_their_causes() -> None:
    text = formatted(raised(OSError("the disk is full")))
    assert "OSError: the disk is full" in text
    assert "ValueError: outer" in text


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for path, _, tree in modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if name in _LOGGERS and node.func.attr in _LEVELS:
                yield f"{path}:{node.lineno}", node


def test_no_log_call_is_given_what_may_hold_a_user_s_id() -> None:
    calls = list(log_calls())
    assert len(calls) > 20
    wrong = [
        f"{place} logs {ast.unparse(argument)}"
        for place, call in calls
        for argument in (*call.args, *(keyword.value for keyword in call.keywords))
        if _shown(argument) & _PERSONAL
    ]
    assert not wrong


#: Errors that are logged where they are met; other errors are answers to who sent the id.
_LOGGED = {"CorruptRecord", "ServiceUnavailable", "EncoderUnavailable", "RuntimeError"}


def test_no_error_that_is_logged_tells_a_user_s_id() -> None:
    raised = [
        (f"{path}:{node.lineno}", node.exc)
        for path, _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in _LOGGED
    ]
    assert len(raised) > 20
    wrong = [
        f"{place} tells {ast.unparse(argument)}"
        for place, call in raised
        for argument in call.args
        if _shown(argument) & (_PERSONAL - {"path", "settings"})
    ]
    assert not wrong


def _shown(argument: ast.expr) -> set[str]:
    """Give the last names of what an argument shows; a length or a count shows nothing."""
    match argument:
        case ast.Call(func=ast.Name(id="len" | "sum" | "type")):
            return set()
        case ast.Name(id=name):
            return {name}
        case ast.Attribute(attr=name):
            return {name}
    return set().union(*(_shown(child) for child in ast.iter_child_nodes(argument)
                         if isinstance(child, ast.expr)))  # fmt: skip
