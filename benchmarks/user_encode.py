"""The sequence encoder beside what it replaces: windows/s of

- **ours**: rows without padding, the last layer for the newest event alone;
- **padded**: the same model and weights as plain torch modules, inference mode, fused attention,
  every window padded to 50 events, in batches as large as ours; the outputs must be equal;
- **padded to the batch**: the same, windows sorted by length, padded to the longest of their batch;
- **text window**: each window as one text of at most 256 tokens, through MiniLM.

Beside them the matmul peak of the device: the highest rate of a large square product and of the
model's own shapes, same threads and precision. The share of it counts the products that the result
needs: neither empty slots nor what the padded form computes for nothing.

torch, numpy and the standard library are enough; without the project's other packages the rows of
the text window and of whole windows are skipped.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.results import Measurement, Report
from benchmarks.window_lengths import MAX_EVENTS, WindowLengths, beauty, online_retail
from encoder.sequence_cuda import StagedSequence
from encoder.sequence_model import N_CODES, SequenceModel, SequenceShape
from encoder.sequence_packed import PackedSequence
from encoder.sequence_rows import Ints

_NAME: Final = "user-encode"
_DATA: Final = Path(__file__).parents[1].parent / "shared" / "data"
_DIMS: Final = (64, 128, 256)
_N_ITEMS: Final = 12_000
_TEXT_DIM: Final = 384
#: Windows in a padded batch: about as many slots as a piece of ours.
_PADDED_BATCH: Final = {"cpu": 64, "cuda": 512}
_SQUARE: Final = 1_024
_EQUAL: Final = {"cpu": 1e-5, "cuda": 2e-2}


class Batch(NamedTuple):
    """What the model reads: see :meth:`encoder.sequence_packed.PackedSequence.encode`."""

    vectors: NDArray[np.float32]
    items: Ints
    codes: Ints
    lengths: Ints

    def needed_flop(self, shape: SequenceShape) -> float:
        """Count the operations of the matrix products that the vectors need."""
        dim, rest = shape.dim, shape.n_layers - 1
        n_events, n_windows = float(self.lengths.sum()), len(self.lengths)
        pairs = float((self.lengths * (self.lengths + 1) // 2).sum())
        linear = rest * 24 * dim**2 * n_events + 4 * dim**2 * n_events + 20 * dim**2 * n_windows
        return linear + 4 * dim * (rest * pairs + n_events)


def run(arguments: Sequence[str]) -> Report:
    """Measure; ``--help`` says what can be chosen."""
    options = _options(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        rows = (_skipped("ours", "torch finds no CUDA device"),)
        return Report(rows, dict.fromkeys(("of peak", "padded", "text"), "no CUDA device"))
    if options.threads:
        torch.set_num_threads(options.threads)
    rows_: list[Measurement] = []
    values: dict[str, float | str] = {}
    for lengths, dim in itertools.product(
        (beauty(options.data), online_retail(options.data)), options.dims
    ):
        measured, found = _against_padded(lengths, dim, device, options)
        rows_ += measured
        if dim == 64 and lengths.name.startswith("Beauty"):
            values |= found
    try:
        from benchmarks.user_encode_text import against_text
    except ImportError as error:
        rows_.append(_skipped("text window", f"not installed here: {error.name}"))
        values["text"] = f"not installed here: {error.name}"
    else:
        measured, values["text"] = against_text(options.data, device, options.runs)
        rows_ += measured
    return Report(tuple(rows_), values)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks user-encode")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("INTEREST_BENCH_DATA", _DATA)),
        help="folder of amazon_beauty and online_retail; INTEREST_BENCH_DATA, else ../shared/data",
    )  # fmt: skip
    parser.add_argument("--windows", type=int, default=0, help="windows at d = 64; fewer above")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--dims", type=int, nargs="+", default=_DIMS)
    return parser.parse_args(arguments)


def _against_padded(
    lengths: WindowLengths, dim: int, device: torch.device, options: argparse.Namespace
) -> tuple[list[Measurement], dict[str, float | str]]:
    n_windows = (options.windows or {"cpu": 1_000, "cuda": 20_000}[device.type]) * 64 // dim
    batch = a_batch(lengths, n_windows, dim)
    model = SequenceModel(SequenceShape(text_dim=_TEXT_DIM, dim=dim)).requires_grad_(False).eval()
    cuda = device.type == "cuda"
    ours = StagedSequence(model, device) if cuda else PackedSequence(model)
    plain = model.to(device, torch.float16 if cuda else torch.float32)
    calls: dict[str, Callable[[], NDArray[np.float32]]] = {
        "ours": lambda: ours.encode(*batch),
        "padded": lambda: padded(plain, batch, device, longest=MAX_EVENTS),
        "padded to the batch": lambda: padded(plain, batch, device),
    }
    expected = calls["padded"]()
    for name, call in calls.items():
        difference = float(np.abs(call() - expected).max())
        if not difference <= _EQUAL[device.type]:
            raise AssertionError(f"{name} differs from the padded form by {difference}")
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    peaks: list[float] = []
    for _ in range(options.runs):
        for name, call in calls.items():
            seconds[name].append(_seconds(call))
        peaks.append(peak_flops(dim, device))
    where = f"{lengths.name}, d = {dim}"
    rate = {name: tuple(n_windows / s for s in runs) for name, runs in seconds.items()}
    rows = [
        _measured(where, name, "windows/s", runs, ratio=_ratio(seconds[name], seconds["ours"]))
        for name, runs in rate.items()
    ]
    needed = batch.needed_flop(model.shape)
    share = tuple(
        needed / s / peak for s, peak in zip(seconds["ours"], peaks, strict=True)
    )  # same round, so that a busy machine slows both
    rows.append(_measured(where, "matmul peak", "GFLOP/s", tuple(p / 1e9 for p in peaks)))
    rows.append(_measured(where, "ours, share of the peak", "", share))
    return rows, {
        "of peak": statistics.median(share),
        "padded": _ratio(seconds["ours"], seconds["padded"]),
    }


def a_batch(lengths: WindowLengths, n_windows: int, dim: int) -> Batch:
    """Draw windows of these lengths over items drawn by Zipf's law; the same each time."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(lengths.lengths, n_windows)
    n_events = int(drawn.sum())
    vectors = rng.normal(size=(_N_ITEMS, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = np.minimum(rng.zipf(1.2, n_events), _N_ITEMS) - 1
    return Batch(vectors, items, rng.integers(0, N_CODES, n_events), drawn)


@torch.inference_mode()
def padded(
    model: SequenceModel, batch: Batch, device: torch.device, longest: int = 0
) -> NDArray[np.float32]:
    """Encode with padding to ``longest``, or for 0 to the longest of each batch, sorted."""
    out = np.zeros((len(batch.lengths), model.shape.dim), np.float32)
    dtype = model.item_scale.dtype
    table = torch.from_numpy(batch.vectors).to(device, dtype)
    for windows in _batches(batch.lengths, _PADDED_BATCH[device.type], is_sorted=not longest):
        lengths = batch.lengths[windows]
        width = longest or int(lengths.max())
        firsts = (np.cumsum(batch.lengths) - batch.lengths)[windows]
        places = np.arange(width)
        inside = places < lengths[:, None]  # (B, L)
        event = np.where(inside, firsts[:, None] + places, 0)
        items = torch.from_numpy(batch.items[event]).to(device)
        codes = torch.from_numpy(batch.codes[event]).to(device)
        vectors = functional.embedding(items, table)  # (B, L, D)
        last = torch.from_numpy(lengths - 1).to(device)
        encoded = model(vectors, codes)[torch.arange(len(windows), device=device), last]
        out[windows] = encoded.cpu().numpy()
    return out


def _batches(lengths: Ints, size: int, *, is_sorted: bool) -> Iterator[Ints]:
    order = np.argsort(lengths) if is_sorted else np.arange(len(lengths))
    for first in range(0, len(order), size):
        yield order[first : first + size]


@torch.inference_mode()
def peak_flops(dim: int, device: torch.device) -> float:
    """Give the highest rate of a matrix product in FLOP/s, of a square one and the model's."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    tokens, square = (2_048, _SQUARE) if device.type == "cpu" else (16_384, 8 * _SQUARE)
    shapes = [(square, square, square)]
    shapes += [(tokens, dim, out * dim) for out in (1, 2, 3, 4)] + [(tokens, 4 * dim, dim)]
    best = 0.0
    for rows, inner, columns in shapes:
        left = torch.randn(rows, inner, device=device, dtype=dtype)
        right = torch.randn(inner, columns, device=device, dtype=dtype)
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        torch.mm(left, right, out=out)
        repeats = max(3, int(2e9 / (2 * rows * inner * columns)))
        torch_sync(device)
        began = time.perf_counter()
        for _ in range(repeats):
            torch.mm(left, right, out=out)
        torch_sync(device)
        best = max(best, 2 * rows * inner * columns * repeats / (time.perf_counter() - began))
    return best


def torch_sync(device: torch.device) -> None:
    """Wait for what was asked of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()  # gives numpy arrays, so a GPU is through
    return time.perf_counter() - began


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Give how many times faster ours is: the median over rounds, whose two runs are neighbours."""
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))


def _measured(
    where: str, name: str, unit: str, runs: tuple[float, ...], ratio: float | None = None
) -> Measurement:
    return Measurement(
        benchmark=_NAME, subject=where, name=name, unit=unit, runs=runs,
        value=statistics.median(runs), ratio=None if name == "ours" else ratio,
        ratio_to="" if ratio is None or name == "ours" else "ours",
    )  # fmt: skip


def _skipped(subject: str, why: str) -> Measurement:
    return Measurement(benchmark=_NAME, subject=subject, name="rate", unit="windows/s", skipped=why)
