"""What the harness tells a worker process."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

STEPS: Final = (
    "before-encode", "after-encode", "before-upsert", "after-upsert",
    "before-changelog", "after-changelog", "before-commit", "after-commit",
)  # fmt: skip
#: An event with this in its text cannot be encoded.
TOXIC: Final = "cannot be encoded"

Action = Literal["kill", "term", "stop", "hold"]


class Aim(msgspec.Struct, frozen=True):
    """What happens when a worker comes to a step, once; ``user``: only with this user in it."""

    step: str
    action: Action
    user: str = ""


class Spec(msgspec.Struct, frozen=True):
    """What a worker process is: its name, the harness' socket, its log and its settings."""

    name: str
    control: str
    log: str
    settings: dict[str, Any]
    fault: str = ""
