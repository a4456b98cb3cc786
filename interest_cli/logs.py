"""What is logged, and how it looks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.logging import RichHandler

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
_Nothing = tuple[None, None, None]
_HIDDEN: Final = "(the key that was looked up is not logged)"


class Formatter(logging.Formatter):
    """Formats as usual, but shows no key that was looked up in vain: it may be a user's id."""

    def formatException(self, ei: _ExcInfo | _Nothing) -> str:  # noqa: N802
        """Give the traceback, with the causes of the error."""
        text = super().formatException(ei)
        for error in _with_causes(ei[1]):
            if isinstance(error, KeyError):
                name = type(error).__name__
                text = text.replace(f"{name}: {error}", f"{name}: {_HIDDEN}")
        return text


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, found.__context__]
            waiting += found.exceptions if isinstance(found, BaseExceptionGroup) else []


def configure_logging(level: str) -> None:
    """Log our own packages at ``level`` on standard error, libraries from warnings on."""
    console = Console(stderr=True)
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False, markup=False)
        handler.setFormatter(Formatter("%(message)s"))
    else:
        # Rich would wrap lines to 80 columns in a file.
        handler = logging.StreamHandler()
        handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("interest", "streams", "encoder", "store", "interest_api", "interest_cli"):
        logging.getLogger(package).setLevel(level.upper())
    # Faust subclasses of ours log the life of every service under our names.
    for noisy in ("streams.app", "streams.transport", "streams.windows"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Both report what we retry and report ourselves.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("faust").setLevel(logging.ERROR)
    logging.getLogger("mode").setLevel(logging.ERROR)
