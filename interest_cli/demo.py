"""The demo: every part, on real servers, with a recorded log of a real shop."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from rich.progress import Progress
from rich.table import Table

from interest import metrics as m
from interest.errors import InterestError, InvalidEvent
from interest.event import Event
from interest.item import Item
from interest.ports import ItemStore, Recommender, UserState, UserVectorStore
from interest.pseudonyms import Pseudonyms
from interest.settings import Settings
from interest.window import BehaviourWindow
from interest_api.app import create_app
from interest_api.keys import ApiKeys, keys_of
from interest_api.metrics import PrometheusMetrics
from interest_api.server import HttpServer, check_port
from interest_cli import stopping
from interest_cli.bundles import load_bundle
from interest_cli.console import err, out, progress_bar, warn
from interest_cli.convert import SAMPLE_FOLDER
from interest_cli.files import RecordFile
from interest_cli.meter import Meter
from interest_cli.replay import LoadedBundle, ReplayedUser, write_parquet
from interest_cli.services import EmbeddedServices
from interest_cli.serving import first
from interest_cli.wiring import ItemIndexes, live_model_of, open_worker
from store.recommend import StoreRecommender
from streams.publish import Outgoing, outgoing_events, outgoing_items, publish
from streams.worker import Worker

_POLL_S: Final = 0.05
_SHOWN_USERS: Final = 3
_SHOWN_ITEMS: Final = 5
_READ: Final = 500
#: Texts of the catalogue that the encoder without training is fitted on: seconds.
_FITTED_TEXTS: Final = 1_000
#: Events sent again to measure freshness at low load.
_PACED_EVENTS: Final = 150
_PACED_PER_S: Final = 50

#: The demo's own servers take none of what the settings may say for real ones.
_UNSECURED: Final[dict[str, Any]] = {
    "kafka_security_protocol": "PLAINTEXT",
    "kafka_user": "",
    "kafka_password": "",
    **{f"{name}_{file}_file": "" for name in ("kafka", "redis") for file in ("ca", "cert", "key")},
}

Kind = Literal["events", "items"]


class DemoFailed(InterestError):
    """The run left something that should not be: a dead letter, or a user without a record."""


class Log(msgspec.Struct, frozen=True):
    """The two files of a run."""

    events: RecordFile
    items: RecordFile


def run_demo(
    settings: Settings,
    *,
    once: bool,
    export: Path | None,
    events: Path | None,
    items: Path | None,
) -> None:
    """Run the demo; see ``interest demo --help``.

    Raises:
        ServiceUnavailable: a server cannot be started.
        DemoFailed: with ``once``, where the run left dead letters or users without a record.
    """
    began = time.perf_counter()
    log = Log(
        RecordFile(events or SAMPLE_FOLDER / "events.jsonl.gz", Event, warn),
        RecordFile(items or SAMPLE_FOLDER / "items.jsonl.gz", Item, warn),
    )
    keys = keys_of(settings)
    check_port(settings.api_host, settings.api_port)
    with EmbeddedServices() as services:
        here = msgspec.structs.replace(
            settings,
            kafka_bootstrap=services.kafka_bootstrap,
            **_UNSECURED,
            redis_url=services.redis_url,
            qdrant_url="",
            topic_prefix="",
            session_timeout_s=6.0,
            fetch_max_wait_ms=20,
        )
        # The keeper removes this folder whatever way we end; torch would leave one of its own.
        folder = Path(services.running.folder)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "torch"))
        stopping.run(_demo(here, folder, keys, log, began, once=once, export=export))


def _load(settings: Settings, folder: Path, log: Log) -> LoadedBundle:
    """Load the bundle of the settings, else fit one on the catalogue in ``folder``."""
    # torch takes seconds to import.
    from interest_cli.fitting import fit_bundle

    fits = not settings.bundle and settings.user_encoder == "decay"
    if fits and log.items.path != "-":  # which can be read only once
        fitted = folder / "bundle"
        fit_bundle(Path(log.items.path), fitted, settings, n_texts=_FITTED_TEXTS)
        settings = msgspec.structs.replace(settings, bundle=str(fitted))
    return load_bundle(settings)


async def _demo(
    settings: Settings,
    folder: Path,
    keys: ApiKeys,
    log: Log,
    began: float,
    *,
    once: bool,
    export: Path | None,
) -> None:
    with err.status("loading the text model"):
        loaded = await asyncio.to_thread(_load, settings, folder, log)
    prometheus = PrometheusMetrics()
    meter = Meter(prometheus)
    bundle = loaded.bundle
    async with AsyncExitStack() as stack:
        with err.status("starting the worker"):
            worker, items, vectors = await stack.enter_async_context(
                open_worker(settings, loaded, meter)
            )
        indexes = ItemIndexes(settings)
        indexes.add(live_model_of(bundle), items)
        recommender = StoreRecommender(
            vectors,
            indexes.get,
            path=None if settings.retrieval_path == "auto" else settings.retrieval_path,
            pseudonym=Pseudonyms(settings.pseudonym_key),
        )
        server = HttpServer(
            create_app(recommender, metrics=prometheus, keys=keys),
            settings.api_host,
            settings.api_port,
        )
        await stack.enter_async_context(server)
        await first(worker.failure(), _play(settings, log, worker, meter))
        windows = list(_windows(worker))
        states = await _states(windows, vectors, bundle.model_id)
        await _show_users(windows, recommender, items)
        if export is not None:
            users = [
                ReplayedUser(window, state.vector.vectors)
                for window, state in zip(windows, states, strict=True)
            ]
            write_parquet(export, users, bundle.model_id)
        n_letters = meter.totals[m.DEAD_LETTERS]
        n_cold = sum(state.vector.is_cold for state in states)
        out.print(
            f"\n{len(windows)} users, {len(states)} records, {n_cold} of them cold; "
            f"{n_letters} dead letters; {time.perf_counter() - began:.1f} s in all"
        )
        if once:
            if n_letters:
                raise DemoFailed(f"{n_letters} messages of the log became dead letters")
            return
        out.print(f"\nserving {server.url}/docs until Ctrl-C; for instance")
        key = "-H 'X-API-Key: …' " if keys else ""
        path = f"/v1/users/{windows[0].subject_id}/recommendations?k=5"
        out.print(f"  curl {key}'{server.url}{path}'")
        await first(worker.failure(), server.wait())


async def _play(settings: Settings, log: Log, worker: Worker, meter: Meter) -> None:
    """Publish catalogue and events, and wait until every vector is readable."""
    with progress_bar() as bar:
        await _stage(
            bar, "catalogue", settings, "items", log.items, outgoing_items, worker,
            lambda s: f"{len(worker.feed.known):,} items, {meter.totals[m.ITEMS] / s:,.0f}/s",
        )  # fmt: skip
        await _stage(
            bar, "events", settings, "events", log.events, outgoing_events, worker,
            lambda s: _event_note(meter, s),
        )  # fmt: skip
    await _measure(settings, log, worker, meter)


def _event_note(meter: Meter, seconds: float) -> str:
    events, vectors = meter.totals[m.EVENTS], meter.totals[m.VECTORS]
    p50, p95, p99 = meter.freshness_ms()
    return (
        f"{events / seconds:,.0f} events/s, {vectors / seconds:,.0f} vectors/s, "
        f"freshness {p50:.0f}/{p95:.0f}/{p99:.0f} ms"
    )


async def _stage(
    bar: Progress,
    name: str,
    settings: Settings,
    kind: Kind,
    file: RecordFile,
    outgoing: Callable[[Iterable[bytes], Callable[[InvalidEvent], None]], Iterator[Outgoing]],
    worker: Worker,
    note: Callable[[float], str],
) -> None:
    task = bar.add_task(name, total=None, note="")
    began = time.perf_counter()
    raws = (record.raw for record in file)
    publishing = asyncio.create_task(
        publish(settings, kind, outgoing(raws, lambda error: warn(str(error))))
    )
    try:
        idle = False
        while not idle:
            await asyncio.sleep(_POLL_S)
            if publishing.done():
                publishing.result()
            lag = await worker.lag()
            behind = sum(lag.values()) + len(worker.dirty)
            bar.update(task, note=f"{note(time.perf_counter() - began)}, lag {behind:,}")
            idle = publishing.done() and await worker.idle()
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    bar.update(task, total=1, completed=1)


async def _measure(settings: Settings, log: Log, worker: Worker, meter: Meter) -> None:
    """Send some events of the log again, slowly: folding them changes nothing, so what is
    measured is the way from Kafka to Redis at low load.
    """
    meter.freshness_s.clear()
    raws = [record.raw for record in itertools.islice(log.events, _PACED_EVENTS)]
    paced = [
        msgspec.structs.replace(event, ts_ms=i * 1000 // _PACED_PER_S)
        for i, event in enumerate(outgoing_events(raws, lambda error: None))
    ]
    await publish(settings, "events", paced, speed=1.0)
    while not await worker.idle():
        await asyncio.sleep(_POLL_S)
    p50, p95, p99 = meter.freshness_ms()
    out.print(
        f"freshness at {_PACED_PER_S} events/s: "
        f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms"
    )


def _windows(worker: Worker) -> Iterator[BehaviourWindow]:
    held = (
        entry.window
        for partition in worker.windows.partitions.values()
        for entry in partition.held.values()
    )
    yield from sorted(held, key=lambda window: window.subject_id)


async def _states(
    windows: Sequence[BehaviourWindow], vectors: UserVectorStore, model_id: str
) -> list[UserState]:
    """Read the record of every user of the log.

    Raises:
        DemoFailed: a user has none.
    """
    states: list[UserState] = []
    for first_ in range(0, len(windows), _READ):
        subjects = [window.subject_id for window in windows[first_ : first_ + _READ]]
        for subject_id, state in zip(
            subjects, await vectors.fetch(subjects, model_id), strict=True
        ):
            if state is None:
                raise DemoFailed(f"user {subject_id} has no record in Redis")
            states.append(state)
    return states


async def _show_users(
    windows: Sequence[BehaviourWindow], recommender: Recommender, items: ItemStore
) -> None:
    step = max(1, len(windows) // _SHOWN_USERS)
    for window in windows[::step][:_SHOWN_USERS]:
        last = list(reversed(window.events))[:_SHOWN_ITEMS]
        titles = await items.fetch([e.item_id for e in last if e.item_id is not None])
        found = await recommender.recommend(window.subject_id, _SHOWN_ITEMS)
        table = Table(
            f"last behaviours of user {window.subject_id}", "recommended", "score",
            box=None, padding=(0, 2, 0, 0),
        )  # fmt: skip
        for event, scored in itertools.zip_longest(last, found.items):
            encoded = titles.get(event.item_id or "") if event else None
            what = encoded.item.title if encoded else (event.text or event.item_id if event else "")
            table.add_row(
                f"{event.type.value}: {what}" if event else "",
                scored.item.title if scored else "",
                f"{scored.score:.3f}" if scored else "",
            )
        out.print()
        out.print(table)
