"""Look at single users from the command line."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
from rich.table import Table

from interest.clock import system_clock
from interest.errors import BadInput, ServiceUnavailable
from interest.item import ItemFilter
from interest.ports import Recommendations, Recommender
from interest.settings import Settings
from interest_cli.console import out
from interest_cli.wiring import open_recommender

_INDEX_S: Final = 60.0
_RETRY_S: Final = 0.2


async def show_vector(settings: Settings, user_id: str, *, as_json: bool) -> None:
    """Print one user's record.

    Raises:
        BadInput: the live model has no record of this user.
        ServiceUnavailable: Redis does not answer, or no worker has set a live model.
    """
    async with open_recommender(settings) as recommender:
        vector = await recommender.user(user_id)
    if vector is None:
        raise BadInput(f"the live model has no vector of user {user_id!r}")
    age_ms = system_clock() - vector.event_time_ms
    if as_json:
        fields = {
            "user_id": user_id, "model_id": vector.model_id, "dim": vector.dim,
            "token": list(vector.token), "n_events": vector.n_events,
            "event_time_ms": vector.event_time_ms, "encode_time_ms": vector.encode_time_ms,
            "age_ms": age_ms, "vectors": vector.vectors.tolist(),
        }  # fmt: skip
        print(msgspec.json.encode(fields).decode())
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in (
        ("user", user_id),
        ("model", vector.model_id),
        ("vectors", f"{len(vector.vectors)} × {vector.dim}" + (" (cold)" * vector.is_cold)),
        ("events", f"{vector.n_events} in the window"),
        ("newest event", _utc(vector.event_time_ms)),
        ("encoded", _utc(vector.encode_time_ms)),
        ("token", f"era {vector.token.era}, generation {vector.token.generation}, "
                  f"revision {vector.token.revision}"),
        ("starts", " ".join(f"{x:+.4f}" for x in vector.vectors[0][:6]) + " …"
                   if len(vector.vectors) else "—"),
    ):  # fmt: skip
        table.add_row(name, value)
    out.print(table)


async def show_recommendations(
    settings: Settings,
    user_id: str,
    k: int,
    *,
    exclude_seen: bool,
    where: ItemFilter,
    as_json: bool,
) -> None:
    """Print what to recommend to one user.

    Raises:
        ServiceUnavailable: a store does not answer, or no worker has set a live model.
    """
    async with open_recommender(settings) as recommender:
        found = await _patiently(recommender, user_id, k, exclude_seen, where)
        vector = await recommender.user(user_id)
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    if found.basis == "popular":
        why = (
            "nothing is known of this user"
            if vector is None
            else f"none of the {vector.n_events} events in this user's window says what is "
            "liked (returns, removals, or items the catalogue does not know)"
        )
        out.print(f"{why}: popular items", markup=False)
    table = Table("score", "item", "title", box=None, padding=(0, 2, 0, 0))
    for scored in found.items:
        table.add_row(f"{scored.score:.3f}", scored.item.item_id, scored.item.title)
    out.print(table)


async def _patiently(
    recommender: Recommender, user_id: str, k: int, exclude_seen: bool, where: ItemFilter
) -> Recommendations:
    # Without a Qdrant server this process first reads the index from Kafka.
    await recommender.user(user_id)
    deadline = time.monotonic() + _INDEX_S
    while True:
        try:
            return await recommender.recommend(user_id, k, exclude_seen=exclude_seen, where=where)
        except ServiceUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_RETRY_S)


def _utc(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ms / 1000))
