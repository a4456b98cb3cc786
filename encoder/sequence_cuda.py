"""The sequence encoder on a GPU: half precision, one CUDA graph per shape, two staging buffers.

While the device computes one piece of a micro-batch, the next is gathered into the other buffer of
pinned memory. Few shapes are enough, since windows lie in rows without padding. Without CUDA the
same steps run without graphs, which is how they are tested on a CPU.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from encoder.sequence_model import SequenceModel, apart, filtered
from encoder.sequence_rows import Ints, Rows, lay_out

#: Slots of the shapes that have a graph; a piece takes the smallest that holds it.
_SLOTS: Final = (1_024, 4_096, 16_384)
#: Widths of rows for windows of up to 64 events; longer ones run without a graph.
_WIDTHS: Final = (32, 64)
_WARM_UPS: Final = 3
#: Its constructors are untyped.
_cuda: Any = torch.cuda


class _Inputs(NamedTuple):
    """What the device needs of a piece; R rows of W slots, flat."""

    vectors: Tensor  # (R·W, D)
    codes: Tensor  # (R·W,) int32
    places: Tensor  # (R·W,) int32: number of the window in its row, -1 for an empty slot

    def first(self, n_slots: int) -> _Inputs:
        """Give views of the beginning."""
        return _Inputs(*(tensor[:n_slots] for tensor in self))


class _Graph(NamedTuple):
    graph: Any
    inputs: _Inputs
    output: Tensor  # (R·W, D)


class _Stage:
    """Pinned memory for one piece, and when it may be written again."""

    def __init__(self, dim: int, dtype: torch.dtype, *, cuda: bool) -> None:
        most = _SLOTS[-1]
        self.inputs = _inputs(most, dim, dtype, pin_memory=cuda)
        self.ends = torch.zeros(most, dtype=torch.int64, pin_memory=cuda)
        self.copied: Any = _cuda.Event() if cuda else None


class StagedSequence:
    """Runs a model on a device; not for several threads at once.

    On CUDA in float16; ``tests/cuda`` holds it against float32 on the CPU (cosine ≥ 0.9999).
    """

    def __init__(self, model: SequenceModel, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._device = device
        dtype = torch.float16 if self._cuda else torch.float32
        self._dim = model.shape.dim
        with torch.no_grad():
            self._events = model.event_table().to(device, dtype)  # (N_CODES, D)
            self._scale = float(model.item_scale)
            self._model = copy.deepcopy(model).requires_grad_(False).to(device, dtype).eval()
        self._biases: dict[int, Tensor] = {}
        self._stages = [_Stage(self._dim, dtype, cuda=self._cuda) for _ in range(2)]
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._stream: Any = _cuda.Stream(device) if self._cuda else None
        if self._cuda:
            self._capture(dtype)

    @torch.inference_mode()
    def encode(
        self, vectors: NDArray[np.float32], items: Ints, codes: Ints, lengths: Ints
    ) -> NDArray[np.float32]:
        """Give the vector of each window; see :class:`encoder.sequence_packed.PackedSequence`.

        Raises:
            RuntimeError: the device failed.
        """
        out = torch.zeros(len(lengths), self._dim, pin_memory=self._cuda)
        table = torch.from_numpy(vectors).to(self._events.dtype)  # (V, D), on the host
        firsts = np.cumsum(lengths) - lengths
        done: list[tuple[NDArray[np.int64], int]] = []
        n_done = 0
        pieces = (piece for rows in lay_out(lengths) for piece in rows.chunks(_SLOTS[-1]))
        for i, rows in enumerate(pieces):
            stage = self._stages[i % 2]
            if stage.copied is not None:
                stage.copied.synchronize()
            self._fill(stage, rows, table, items, codes, firsts)
            n = len(rows.windows)
            with self._on_stream():
                out[n_done : n_done + n].copy_(self._run(stage, rows), non_blocking=True)
            done.append((rows.windows, n_done))
            n_done += n
        if self._stream is not None:
            self._stream.synchronize()
        ordered = np.zeros((len(lengths), self._dim), np.float32)
        for windows, first in done:
            ordered[windows] = out.numpy()[first : first + len(windows)]
        return ordered

    def _fill(
        self, stage: _Stage, rows: Rows, table: Tensor, items: Ints, codes: Ints, firsts: Ints
    ) -> None:
        events, slots, places = rows.slots(firsts)
        n_slots = self._size(rows)
        inputs = stage.inputs.first(n_slots)
        item_at = np.zeros(n_slots, np.int64)
        item_at[slots] = items[events]
        torch.index_select(table, 0, torch.from_numpy(item_at), out=inputs.vectors)
        inputs.codes.zero_()
        inputs.codes.numpy()[slots] = codes[events]
        inputs.places.fill_(-1)
        inputs.places.numpy()[slots] = places
        stage.ends[: len(rows.ends)].copy_(torch.from_numpy(rows.ends))

    def _run(self, stage: _Stage, rows: Rows) -> Tensor:
        """Compute a piece; (U, D) in float32 on the device."""
        n_slots = self._size(rows)
        staged = stage.inputs.first(n_slots)
        graph = self._graphs.get((rows.width, n_slots))
        if graph is None:
            inputs = _Inputs(*(t.to(self._device, non_blocking=True) for t in staged))
        else:
            inputs = graph.inputs
            for there, here in zip(inputs, staged, strict=True):
                there.copy_(here, non_blocking=True)
        ends = stage.ends[: len(rows.ends)].to(self._device, non_blocking=True)
        if stage.copied is not None:
            stage.copied.record(self._stream)
        if graph is None:
            output = self._forward(inputs, rows.width)
        else:
            graph.graph.replay()
            output = graph.output
        return output.index_select(0, ends)

    def _forward(self, inputs: _Inputs, width: int) -> Tensor:
        """Give the vector after each slot: (R·W, D)."""
        x = functional.embedding(inputs.codes, self._events)
        x = torch.add(x, inputs.vectors, alpha=self._scale).view(-1, width, self._dim)
        places = inputs.places.view(-1, width)
        x = filtered(x, self._model.taps, places)
        bias = self._biases.get(width)
        if bias is None:
            bias = self._biases[width] = self._model.bias(width)[None]  # (1, H, W, W)
        return self._model.attend(x, apart(bias, places)).flatten(0, 1)

    def _size(self, rows: Rows) -> int:
        """Give the slots to compute: those of the graph that will run, or the rows' own."""
        n_slots = rows.n_rows * rows.width
        if rows.width not in _WIDTHS:
            return n_slots
        return next(size for size in _SLOTS if size >= n_slots)

    @torch.inference_mode()
    def _capture(self, dtype: torch.dtype) -> None:
        pool = torch.cuda.graph_pool_handle()
        # Largest first, so that the others find their memory in the pool.
        for n_slots in reversed(_SLOTS):
            for width in _WIDTHS:
                inputs = _inputs(n_slots, self._dim, dtype, device=self._device)
                with self._on_stream():
                    for _ in range(_WARM_UPS):
                        self._forward(inputs, width)
                torch.cuda.synchronize(self._device)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
                ):
                    output = self._forward(inputs, width)
                self._graphs[width, n_slots] = _Graph(graph, inputs, output)

    def _on_stream(self) -> Any:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


def _inputs(n_slots: int, dim: int, dtype: torch.dtype, **where: Any) -> _Inputs:
    return _Inputs(
        torch.zeros(n_slots, dim, dtype=dtype, **where),
        torch.zeros(n_slots, dtype=torch.int32, **where),
        torch.zeros(n_slots, dtype=torch.int32, **where),
    )
