"""What a run has left, held against the oracle."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.chaos import oracle
from tests.chaos.records import StoredVector
from tests.chaos.rig import Rig
from tests.chaos.services import HarnessFailed
from tests.chaos.topics import total

_COSINE: Final = 0.9999
_ENCODE_S: Final = 300.0


class Found(NamedTuple):
    """What was read at the end of a run."""

    log: list[oracle.Logged]
    forgotten: dict[str, int]
    expected: dict[str, list[oracle.Event]]
    windows: dict[str, list[oracle.Event]]
    vectors: dict[str, StoredVector | None]
    encoded: dict[str, NDArray[np.float32]]
    letters: dict[str, oracle.Logged]


class Verdict:
    """Counts of what must be 0, and the first difference of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(("lost", "doubled", "stale"), 0))
        self.differences: list[str] = []
        self.n_dead = 0
        self.n_poison = 0

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.differences

    def add(self, kind: str, what: str, n: int = 1) -> None:
        """Count a difference."""
        self.counts[kind] += n
        self.differences.append(f"{kind}: {what}")


async def judge(rig: Rig) -> Verdict:
    """Wait until all is done, read what is left, and compare.

    A run that does not come to rest has failed; what is there then is compared all the same, for
    it tells more.
    """
    verdict = Verdict()
    await rig.producers.flush()
    try:
        await rig.quiet()
    except HarnessFailed as error:
        verdict.add("restless", str(error))
    vectors = await rig.keys()
    await rig.end_reading()
    await _recover_afresh(rig)
    missing = await rig.log.behind(rig.sources)
    if missing:
        verdict.add("lost", f"offsets that are not committed: {missing}", total(missing))
    found = await _read(rig, vectors)
    _compare_written(rig, found.log, verdict)
    compare_windows(found.expected, found.windows, verdict, _places(found))
    compare_vectors(found, verdict)
    compare_letters(found, verdict)
    compare_forgotten(found, verdict)
    for violation in rig.violations:
        verdict.add("stale", f"a reader saw it step back: {violation}")
    return verdict


async def _recover_afresh(rig: Rig) -> None:
    """Let one new worker recover everything from the changelog; all others end in order."""
    old = rig.fleet.alive
    rig.fleet.scale(len(old) + 1)
    await rig.shared()
    for n_left, worker in zip(range(len(old), 0, -1), old, strict=True):
        rig.fleet.n_wanted = n_left
        worker.expected_end = True
        worker.signal(signal.SIGTERM)
        if rig.broker.kind == "tansu":  # it loses its group when several leave at once
            await worker.gone.wait()
            await rig.shared()
    for worker in old:
        await asyncio.wait_for(worker.gone.wait(), 60)
    await rig.quiet()


async def _read(rig: Rig, vectors: dict[str, StoredVector | None]) -> Found:
    [worker] = rig.fleet.working
    windows_path = rig.folder / "windows.json"
    await worker.ask("dump", path=str(windows_path))
    log = await rig.log.read(rig.names.behaviours)
    forgotten = oracle.forgotten_ms(await rig.log.read(rig.names.forget)) if rig.forgets else {}
    expected = oracle.windows(log, forgotten)
    items = oracle.items(await rig.log.read(rig.names.catalogue))
    path = rig.folder / "oracle.json"
    path.write_text(json.dumps({"items": items, "windows": expected}))
    await worker.ask("encode", _ENCODE_S, path=str(path))
    made = np.load(path.with_suffix(".npz"))
    encoded = dict(zip(made["users"].tolist(), made["vectors"], strict=True))
    letters: dict[str, oracle.Logged] = {}
    for letter in await rig.log.read(rig.names.dead_letters):
        name = (letter.key or b"").decode()
        if letter.value is None:
            letters.pop(name, None)
        else:
            letters[name] = letter
    windows = oracle.named(json.loads(windows_path.read_bytes()), log)
    return Found(log, forgotten, expected, windows, vectors, encoded, letters)


def _compare_written(rig: Rig, log: Sequence[oracle.Logged], verdict: Verdict) -> None:
    """See that the broker has what it acknowledged: else nothing can be said of the product."""
    held = {(record.partition, record.offset): record.value for record in log}
    for written in rig.producers.written:
        if written.topic == rig.names.behaviours:
            value = held.get((written.partition, written.offset), b"not there")
            if value != written.value:
                verdict.add("broker", f"it has lost an acknowledged record: {written}")


def _places(found: Found) -> dict[str, str]:
    """Say where and when each event came, and what its person asked for."""
    places: dict[str, str] = {}
    for record in found.log:
        if record.value is not None and not record.mark:
            event = json.loads(record.value)
            when = f"{record.name} at {record.timestamp_ms}, ts {event['ts']}"
            forgotten_ms = found.forgotten.get(event["user_id"])
            places[event["event_id"]] = when + (
                "" if forgotten_ms is None else f", forgotten at {forgotten_ms}"
            )
    return places


def compare_windows(
    expected: Mapping[str, Sequence[oracle.Event]],
    windows: Mapping[str, Sequence[oracle.Event]],
    verdict: Verdict,
    places: Mapping[str, str] | None = None,
) -> None:
    """Compare windows event by event; ``places`` tells where in the log an event id is."""
    where = places or {}
    for user in sorted(expected.keys() | windows.keys()):
        want = {event["event_id"]: event for event in expected.get(user, [])}
        got = Counter(event["event_id"] for event in windows.get(user, []))
        lost = sorted(want.keys() - got.keys())
        extra = sorted(got.keys() - want.keys())
        twice = sorted(event_id for event_id, n in got.items() if n > 1)
        if lost:
            there = [f"{event_id} of {where.get(event_id, 'nowhere')}" for event_id in lost]
            verdict.add("lost", f"{user} has lost {there}", len(lost))
        if twice:
            verdict.add("doubled", f"{user} has twice {twice}", len(twice))
        if extra and not lost:
            verdict.add("doubled", f"{user} has too many {extra}", len(extra))
        elif extra and not twice:
            verdict.add("stale", f"{user} has instead {extra}", len(extra))
        differing = [
            event
            for event in windows.get(user, [])
            if event["event_id"] in want and event != want[event["event_id"]]
        ]
        if differing:
            verdict.add("stale", f"{user} has another content: {differing[0]}", len(differing))
        if not (lost or extra or twice or differing) and [
            event["event_id"] for event in windows.get(user, [])
        ] != list(want):
            verdict.add("stale", f"{user} has its events in another order")


def compare_vectors(found: Found, verdict: Verdict) -> None:
    """Compare each vector with one encode of the oracle's window."""
    for user, window in found.expected.items():
        stored = found.vectors.get(user)
        if stored is None:
            verdict.add("stale", f"{user} has no vector")
            continue
        if stored.n_events > len(window):
            verdict.add("doubled", f"the vector of {user} counts {stored.n_events} events, "
                        f"not {len(window)}")  # fmt: skip
            continue
        if stored.n_events < len(window) or stored.event_time_ms != window[-1]["ts"]:
            shown = f"{stored.n_events} events up to {stored.event_time_ms}"
            wanted = f"{len(window)} up to {window[-1]['ts']}"
            verdict.add("stale", f"the vector of {user} shows {shown}, not {wanted}")
            continue
        want = found.encoded[user]
        if not len(stored.vectors):
            close = not want.any()
        else:
            close = bool(float(stored.vectors[0] @ want) >= _COSINE)
        if not close:
            verdict.add("stale", f"the vector of {user} points elsewhere")


def compare_letters(found: Found, verdict: Verdict) -> None:
    """Compare the dead letters with the poison that was sent."""
    expected = oracle.dead_letters(found.log, found.forgotten)
    toxic = oracle.toxic_events(found.log)
    verdict.n_poison, verdict.n_dead = len(expected) + len(toxic), len(found.letters)
    values = {record.name: record.value for record in found.log}
    of_events = {
        name: json.loads(letter.value or b"")["event_id"]
        for name, letter in found.letters.items()
        if dict(letter.headers).get("reason") == b"poison"
    }
    of_records = found.letters.keys() - of_events.keys()
    missing = sorted(expected.keys() - of_records) + sorted(toxic - set(of_events.values()))
    extra = sorted(of_records - expected.keys()) + sorted(
        name for name, event_id in of_events.items() if event_id not in toxic
    )
    if missing:
        verdict.add("dead", f"no dead letter of {missing[:5]}", len(missing))
    if extra:
        letter = found.letters[extra[0]]
        verdict.add("dead", f"dead letters of good records: {extra[:5]}, {letter}", len(extra))
    for name in expected.keys() & of_records:
        if found.letters[name].value != (values[name] or b""):
            verdict.add("dead", f"the letter {name} has not the original bytes")


def compare_forgotten(found: Found, verdict: Verdict) -> None:
    """See that nothing of a forgotten user is left who has not come back."""
    for user in found.forgotten.keys() - found.expected.keys():
        if user in found.vectors:
            verdict.add("forgotten", f"{user} has a key in Redis")
    for user, forgotten_ms in found.forgotten.items():
        for name, letter in found.letters.items():
            headers = dict(letter.headers)
            if headers.get("key", b"").decode(errors="replace") == user and (
                int(headers.get("timestamp-ms", b"0")) <= forgotten_ms
            ):
                verdict.add("forgotten", f"the dead letter {name} carries {user}")
