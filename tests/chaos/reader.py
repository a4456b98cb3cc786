"""A process that reads vectors without pause, and reports each that steps back.

``python -P -m tests.chaos.reader URL PREFIX``. Orders are JSON lines on standard input:
``{"watch": [users]}``, ``{"losing": true}`` (Redis is about to be set back: nothing is judged) and
``{"lost": true}`` (it was: until a user is where it was, it may be lower),
``{"forget": user, "ms": t}`` before a request is sent (t is Unix ms) and
``{"forgotten": user}`` when it was seen to be carried out. Answers, each a line:
``{"heeded": true}`` for each order that holds for whatever is read from here on,
``{"violation": text}``, and ``{"rounds": n}`` when standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from tests.chaos.records import model_field, user_vector

_AWAY_S: Final = 0.02
_NICE: Final = 10


class Seen(NamedTuple):
    """How far a user's vector was at its best."""

    token: tuple[int, int, int]
    event_time_ms: int
    n_events: int


class Watch:
    """Remembers how far each user was, and says what must not be."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self._best: dict[str, Seen] = {}
        self._losing = False
        self._healing: set[str] = set()
        self._forgotten_ms: dict[str, int] = {}
        self._leaving: set[str] = set()
        #: Who was forgotten and may be in the older copy that a store came back with.
        self._in_copy: set[str] = set()

    def obey(self, order: dict[str, Any]) -> None:
        """Take an order of the harness."""
        if "watch" in order:
            self.users += [user for user in order["watch"] if user not in self.users]
        elif "losing" in order:
            self._losing = True
        elif "lost" in order:
            self._losing = False
            self._healing |= set(self._best)
            self._in_copy |= self._forgotten_ms.keys()
        elif "forget" in order:
            self._forgotten_ms[order["forget"]] = order["ms"]
            self._leaving.add(order["forget"])
        else:
            self._leaving.discard(order["forgotten"])
            self._best.pop(order["forgotten"], None)

    def look(self, user: str, raw: bytes | None) -> str:
        """Compare what is read with what was read before; give a sentence if it steps back."""
        if self._losing or user in self._leaving:
            return ""
        best = self._best.get(user)
        if raw is None:
            self._in_copy.discard(user)
            if best is None or user in self._healing:
                return ""
            del self._best[user]  # said once
            return f"the vector of {user} is gone, which was at {best}"
        vector = user_vector(raw)
        now = Seen(vector.token, vector.event_time_ms, vector.n_events)
        if best is None:
            old = now.event_time_ms <= self._forgotten_ms.get(user, -1)
            if old and user in self._in_copy:
                return ""  # until a worker has seen that the store is an older one
            self._in_copy.discard(user)
            self._best[user] = now
            return f"{user} was forgotten and came back: {now}" if old else ""
        if user in self._healing:
            if now.token < best.token or now[1:] < best[1:]:
                return ""
            self._healing.discard(user)
        if now == best:
            return ""
        self._best[user] = now
        if now.token < best.token:
            return f"the token of {user} went from {best} to {now}"
        if now[1:] < best[1:]:
            return f"the content of {user} went from {best} to {now}"
        return ""


def _read_orders(orders: SimpleQueue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    orders.put(None)


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main(url: str, prefix: str) -> None:
    """Read until standard input ends."""
    os.nice(_NICE)  # what is left of the cores; workers come first
    orders: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    redis = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=1)
    watch = Watch()
    n_rounds = 0
    _say({"ready": True})
    while True:
        try:
            while True:
                order = orders.get_nowait()
                if order is None:
                    _say({"rounds": n_rounds})
                    return
                watch.obey(order)
                _say({"heeded": True})
        except Empty:
            pass
        try:
            pipeline = redis.pipeline(transaction=False)
            for user in watch.users:
                pipeline.hgetall(f"{prefix}user:{user}")
            found = pipeline.execute()
        except RedisError:
            time.sleep(_AWAY_S)
            continue
        if not watch.users:
            time.sleep(_AWAY_S)
        for user, fields in zip(watch.users, found, strict=True):
            said = watch.look(user, model_field(fields))
            if said:
                _say({"violation": said})
        n_rounds += 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
