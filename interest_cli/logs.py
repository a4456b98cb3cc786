"""What is logged, and how it looks."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler


def configure_logging(level: str) -> None:
    """Log our own packages at ``level`` on standard error, libraries from warnings on."""
    console = Console(stderr=True)
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        # Rich would wrap lines to 80 columns in a file.
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
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
