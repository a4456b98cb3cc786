"""What encryption at rest costs: processor time per record of a window and of a user vector.

    python -m benchmarks encryption [--windows 2000]

Goes over many full windows in a random order, as a worker does, so that they are not in the
processor's cache; with and without a key in turns. Beside it the cipher alone, and what a bare
AES-256-GCM with a random nonce of 96 bits takes: the difference is the key of its own per record.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.event_log import full_windows
from benchmarks.results import Measurement, Report
from interest.item import unit
from interest.ports import Sealer, VectorUpdate
from interest.recent import recent_of
from interest.sealing import IN_THE_CLEAR
from interest.vector import Token, UserVector
from interest.window import BehaviourWindow, WindowLimits
from interest.window_bytes import window_to_bytes
from store.aes_sealer import AesSealer
from store.user_records import UserRecords
from streams.window_records import Held, WindowRecords

NAME: Final = "encryption"
_MODEL: Final = "0123456789abcdef"
_DIM: Final = 384
_REPEATS: Final = 9

#: What is done to every entry of a list.
Call = Callable[[Any], object]


class _Read(NamedTuple):
    """What reading needs of aiokafka's ``ConsumerRecord``."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int = 0


def run(arguments: Sequence[str]) -> Report:
    """Measure records in the clear and encrypted, then the cipher alone."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--windows", type=int, default=2_000)
    options = parser.parse_args(arguments)
    windows = list(full_windows(WindowLimits().max_events))
    random.Random(0).shuffle(windows)
    held = [Held(window, 1) for window in windows[: options.windows]]
    sealer = AesSealer([(1, os.urandom(32))])
    clear, sealed = _calls(held, IN_THE_CLEAR), _calls(held, sealer)
    rows: list[Measurement] = []
    for name in clear:
        before, after = _in_turns(clear[name], sealed[name])
        rows.append(_row("in the clear", name, before))
        rows.append(_row("encrypted", name, after, against=before))
    raws = [window_to_bytes(entry.window, 1) for entry in held]
    bare = AESGCM(os.urandom(32))
    gcm, xaes = _in_turns(
        (lambda raw: bare.encrypt(os.urandom(12), raw, b"place"), raws),
        (lambda raw: sealer.seal(raw, b"place"), raws),
    )
    size = f"{statistics.mean(map(len, raws)):,.0f} bytes"
    rows.append(_row("bare AES-256-GCM", size, gcm))
    rows.append(_row("the sealer", size, xaes, against=gcm))
    return Report(tuple(rows))


def _calls(held: Sequence[Held], sealer: Sealer) -> dict[str, tuple[Call, Sequence[Any]]]:
    windows, users = WindowRecords("windows-changelog", sealer), UserRecords(sealer)
    updates = [vector_update(entry.window, i) for i, entry in enumerate(held)]
    written = [windows.window(0, entry) for entry in held]
    records = [_Read(record.key, record.value, record.headers) for record in written]
    stored = [(update.vector.user_id, *users.fields(update)) for update in updates]
    return {
        "write a window": (lambda entry: windows.window(0, entry), held),
        "read a window": (windows.read, records),
        f"write a vector of {_DIM}": (users.fields, updates),
        f"read a vector of {_DIM}": (lambda user: users.state(user[0], _MODEL, *user[1:]), stored),
    }


def vector_update(window: BehaviourWindow, i: int, dim: int = _DIM) -> VectorUpdate:
    """Make what a worker upserts of a window; the vector means nothing."""
    rows = unit(np.random.default_rng(i).normal(size=(1, dim)))
    vector = UserVector(
        user_id=window.subject_id, model_id=_MODEL, token=Token(0, 1, i), event_time_ms=i,
        encode_time_ms=i, n_events=len(window.events), vectors=rows.astype(np.float32),
    )  # fmt: skip
    return VectorUpdate(vector, recent_of(window))


def _in_turns(
    one: tuple[Call, Sequence[Any]], other: tuple[Call, Sequence[Any]]
) -> tuple[list[float], list[float]]:
    """Give µs of processor time per entry of each run of both."""
    runs: tuple[list[float], list[float]] = ([], [])
    for _ in range(_REPEATS):
        for (call, entries), measured in zip((one, other), runs, strict=True):
            began = time.thread_time()  # of this core: others work beside us
            for entry in entries:
                call(entry)
            measured.append((time.thread_time() - began) / len(entries) * 1e6)
    return runs


def _row(
    subject: str, name: str, runs: Sequence[float], *, against: Sequence[float] = ()
) -> Measurement:
    value = statistics.median(runs)
    return Measurement(
        benchmark=NAME, subject=subject, name=name, unit="µs", value=value, runs=tuple(runs),
        ratio=statistics.median(against) / value if against else None,
        ratio_to="in the clear" if subject == "encrypted" else "bare" if against else "",
    )  # fmt: skip
