"""What producers send: orderly, doubled, disordered, broken, hot. Seeded."""

from __future__ import annotations

import json
import time
from collections import deque
from random import Random
from typing import Any, Final, NamedTuple

from interest.partition import partition_of
from tests.chaos.oracle import MARK
from tests.chaos.orders import TOXIC

_TYPES: Final = ("view", "view", "view", "click", "click", "cart", "favourite", "purchase",
                 "remove", "return")  # fmt: skip
_QUERIES: Final = ("red mug", "warm jacket", "running shoes", "green tea", "desk lamp")
_WORDS: Final = ("red", "blue", "small", "large", "warm", "old", "new", "soft", "mug", "lamp",
                 "tea", "shoe", "coat", "chair", "book", "knife", "clock", "phone")  # fmt: skip
_DAY_MS: Final = 86_400_000
_REMEMBERED: Final = 4_000

HOT: Final = "hot-0"


class Message(NamedTuple):
    """One record to send to ``behaviours``."""

    key: bytes | None
    value: bytes | None
    mark: str = ""

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """Its headers: the mark, where it is meant to be a dead letter."""
        return [(MARK, self.mark.encode())] if self.mark else []


def now_ms() -> int:
    """Give the wall clock, Unix ms."""
    return time.time_ns() // 1_000_000


class Shop:
    """A seeded source of events and items.

    ``own`` are users of one producer each, ``shared`` come through both, so that two
    partitioners disagree about them; ``fickle`` are forgotten and come back; ``toxic`` send what
    no encoder takes, among other things.
    """

    def __init__(self, rng: Random, partitions: int, n_users: int = 60, n_items: int = 60) -> None:
        self._rng = rng
        self._n = 0
        self.own = ([f"a-{i:03}" for i in range(n_users)], [f"c-{i:03}" for i in range(n_users)])
        self.shared = [f"s-{i:03}" for i in range(n_users // 2)]
        self.fickle = [f"f-{i:03}" for i in range(n_users // 4)]
        self.toxic = [f"t-{i:03}" for i in range(n_users // 3)]
        self.probes = [self.user_of("probe", number, partitions) for number in range(partitions)]
        self.items = [f"i-{i:03}" for i in range(n_items)]
        self._sent: deque[Message] = deque(maxlen=_REMEMBERED)
        self._last_ms: dict[str, int] = {}

    @staticmethod
    def user_of(name: str, partition: int, partitions: int) -> str:
        """Make a user id that belongs to a partition."""
        return next(
            user
            for user in (f"{name}-{partition}-{i}" for i in range(10_000))
            if partition_of(user, partitions) == partition
        )

    def users(self) -> list[str]:
        """Give every user that may come."""
        return [*self.own[0], *self.own[1], *self.shared, *self.fickle, *self.toxic, *self.probes,
                HOT]  # fmt: skip

    def item(self, item_id: str) -> bytes:
        """Give a version of an item."""
        title = " ".join(self._rng.sample(_WORDS, 4))
        return json.dumps({"item_id": item_id, "title": title, "price": self._n}).encode()

    def message(self, producer: int) -> Message:
        """Make the next message of a producer (0 or 1)."""
        chance = self._rng.random()
        if chance < 0.03:
            return self.poison()
        if chance < 0.033:
            return self.toxic_event(self._rng.choice(self.toxic))
        if chance < 0.11 and self._sent:
            return self._rng.choice(self._sent)  # again, perhaps by the other producer
        if chance < 0.31:
            user = HOT
        elif chance < 0.5:
            user = self._rng.choice(self.shared)
        elif chance < 0.56 and producer == 0:
            user = self._rng.choice(self.fickle)
        elif chance < 0.58:
            user = self._rng.choice(self.toxic)
        else:
            user = self._rng.choice(self.own[producer])
        message = self.event(user)
        self._sent.append(message)
        if self._rng.random() < 0.01:
            message = self._other_content(message)
        return message

    def event(self, user: str, **fields: Any) -> Message:
        """Make a new event of a user; late, on a tie or out of order now and then."""
        self._n += 1
        ts = now_ms()
        chance = self._rng.random()
        if chance < 0.08:
            ts = self._last_ms.get(user, ts)  # a tie
        elif chance < 0.16:
            ts -= self._rng.randrange(600_000)
        elif chance < 0.17:
            ts -= 31 * _DAY_MS
        self._last_ms[user] = ts
        made: dict[str, Any] = {"event_id": f"{user}.{self._n}", "user_id": user, "ts": ts}
        chance = self._rng.random()
        if chance < 0.02:
            made |= {"type": "impression", "request_id": "r", "position": 1, "model_id": "m",
                     "item_id": self._rng.choice(self.items)}  # fmt: skip
        elif chance < 0.05:
            made |= {"type": "search", "text": self._rng.choice(_QUERIES)}
        else:
            made |= {"type": self._rng.choice(_TYPES), "item_id": self._rng.choice(self.items)}
            if self._rng.random() < 0.1:
                made |= {
                    "rating": float(self._rng.randrange(6)),
                    "dwell_ms": 700,
                    "platform": "web",
                }
        made |= fields
        return Message(user.encode(), json.dumps(made).encode())

    def _other_content(self, message: Message) -> Message:
        """Say something else under the same id; the greater ``ts`` counts."""
        assert message.value is not None
        event = json.loads(message.value)
        event |= {"ts": event["ts"] + self._rng.choice((-9, 9)), "platform": "other"}
        return Message(message.key, json.dumps(event).encode())

    def poison(self) -> Message:
        """Make a message that breaks the contract."""
        user = self._rng.choice(self.own[0])
        good = self.event(user, type="click", item_id=self.items[0]).value
        assert good is not None
        event = json.loads(good)
        for name in ("request_id", "position", "model_id"):
            event.pop(name, None)  # what would make a whole impression of it
        later = now_ms() + _DAY_MS
        values: list[bytes | None] = [
            None,
            b"",
            b"\xff\xfe\x00",
            good[: len(good) // 2],
            b"[" * 5_000,
            b'"a text"',
            json.dumps({**event, "user_id": ""}).encode(),
            json.dumps({**event, "user_id": "x" * 300}).encode(),
            json.dumps({**event, "type": "stare"}).encode(),
            json.dumps({**event, "ts": 1_700_000_000}).encode(),
            json.dumps({**event, "ts": later}).encode(),
            json.dumps({**event, "ts": "yesterday"}).encode(),
            json.dumps({**event, "rating": 99}).encode(),
            json.dumps({k: v for k, v in event.items() if k != "item_id"}).encode(),
            json.dumps({**event, "type": "impression"}).encode(),
            json.dumps({**event, "user_id": "somebody else"}).encode(),
        ]
        return Message(user.encode(), self._rng.choice(values), "poison")

    def toxic_event(self, user: str) -> Message:
        """Make a valid event that the encoder raises on."""
        text = f"this {TOXIC}"
        made = self.event(user, type="review", item_id=self.items[0], text=text, ts=now_ms())
        return made._replace(mark="toxic")
