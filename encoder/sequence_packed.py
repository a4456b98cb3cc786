"""The sequence encoder on a CPU: only the work that the newest event of each window needs."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from encoder.sequence_model import Layer, SequenceModel, filtered
from encoder.sequence_rows import Ints, Rows, lay_out

#: Slots computed at once: what they need stays in a core's cache.
_CHUNK_SLOTS: Final = 2_048
#: Far below any score, and its square is finite.
_APART: Final = -1e9


class _Weights(NamedTuple):
    """A layer as matrices (in, out), the scale of each norm multiplied into what it feeds."""

    query: Tensor
    key_value: Tensor
    query_key_value: Tensor
    attention_out: Tensor
    feed_in: Tensor
    feed_out: Tensor


class PackedSequence:
    """Runs a model in float32; not for several threads at once."""

    def __init__(self, model: SequenceModel) -> None:
        self._shape = model.shape
        with torch.no_grad():
            self._layers = [_weights(layer) for layer in model.layers if isinstance(layer, Layer)]
            self._scale = float(model.item_scale)
            self._events = model.event_table().contiguous()  # (N_CODES, D)
            self._out_scale = model.norm.weight.clone()
            self._taps = model.taps.clone()
        self._model = model
        self._biases: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.inference_mode()
    def encode(
        self, vectors: NDArray[np.float32], items: Ints, codes: Ints, lengths: Ints
    ) -> NDArray[np.float32]:
        """Give the vector of each window.

        Shapes: V distinct items, M events, N windows.

        Args:
            vectors: (V, D), V ≥ 1.
            items: (M,) row of each event's item, the windows one after the other, oldest first.
            codes: (M,) see :func:`encoder.sequence_model.event_codes`.
            lengths: (N,) events of each window.

        Returns:
            (N, D) unit rows; zeros for a window of no event.
        """
        out = torch.zeros(len(lengths), self._shape.dim)
        table = torch.from_numpy(vectors)
        firsts = np.cumsum(lengths) - lengths
        for rows in lay_out(lengths):
            for chunk in rows.chunks(_CHUNK_SLOTS):
                encoded = self._chunk(chunk, table, items, codes, firsts)
                out.index_copy_(0, torch.from_numpy(chunk.windows), encoded)
        return out.numpy()

    def _chunk(self, rows: Rows, table: Tensor, items: Ints, codes: Ints, firsts: Ints) -> Tensor:
        """Encode some rows; R rows of W slots, U windows: (U, D)."""
        events, slots, places = rows.slots(firsts)
        n_slots = rows.n_rows * rows.width
        item_at, code_at = np.zeros((2, n_slots), np.int64)
        place_at = np.full(n_slots, -1, np.float32)  # -1: empty; no window attends to it
        item_at[slots], code_at[slots], place_at[slots] = items[events], codes[events], places
        x = self._events.index_select(0, torch.from_numpy(code_at)).add_(
            table.index_select(0, torch.from_numpy(item_at)), alpha=self._scale
        )  # (R·W, D)
        place = torch.from_numpy(place_at).view(rows.n_rows, rows.width)
        x = filtered(x.view(rows.n_rows, rows.width, -1), self._taps, place).flatten(0, 1)
        *layers, last = self._layers
        if layers:
            apart = (place[:, :, None] - place[:, None, :]).square_()  # (R, W, W), 0 within
            mask = torch.add(self._bias(rows.width)[0], apart[:, None], alpha=_APART)
            for layer in layers:
                x = self._layer(layer, x, mask)
        return self._newest(last, x, place, rows)

    def _layer(self, layer: _Weights, x: Tensor, mask: Tensor) -> Tensor:
        projected = torch.mm(_norm(x), layer.query_key_value)  # (R·W, 3D)
        query, key, value = self._heads(projected, mask.shape[-1], 3)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = torch.addmm(x, seen.transpose(1, 2).reshape(x.shape), layer.attention_out)
        return _feed(layer, x)

    def _newest(self, layer: _Weights, x: Tensor, place: Tensor, rows: Rows) -> Tensor:
        """Run the last layer: keys and values of all events, the rest for the newest alone."""
        row = rows.ends // rows.width
        at = np.arange(len(row)) - np.searchsorted(row, row)  # (U,) number of a window in its row
        most = int(at.max()) + 1  # Q queries a row
        query_slot = np.repeat(np.arange(rows.n_rows)[:, None] * rows.width, most, axis=1)
        query_slot[row, at] = rows.ends
        ends, slot = torch.from_numpy(rows.ends), torch.from_numpy(query_slot)  # (U,), (R, Q)
        normed = _norm(x)
        key, value = self._heads(torch.mm(normed, layer.key_value), rows.width, 2)
        queries = torch.mm(normed.index_select(0, slot.view(-1)), layer.query)  # (R·Q, D)
        (query,) = self._heads(queries, most, 1)
        inside = (slot % rows.width).view(-1)
        bias = self._bias(rows.width)[1].index_select(0, inside)  # (R·Q, H·W)
        bias = bias.view(rows.n_rows, most, self._shape.n_heads, rows.width).transpose(1, 2)
        query_place = place.view(-1).index_select(0, slot.view(-1)).view(rows.n_rows, most, 1)
        apart = (query_place - place[:, None, :]).square_()  # (R, Q, W)
        mask = torch.add(bias, apart[:, None], alpha=_APART)  # (R, H, Q, W)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        seen = seen.transpose(1, 2).reshape(len(queries), -1)  # (R·Q, D)
        seen = seen.index_select(0, torch.from_numpy(row * most + at))  # (U, D)
        x = _feed(layer, torch.addmm(x.index_select(0, ends), seen, layer.attention_out))
        return functional.normalize(_norm(x) * self._out_scale, dim=-1)

    def _heads(self, projected: Tensor, length: int, n: int) -> tuple[Tensor, ...]:
        """Split (R·L, n·D) into ``n`` of (R, H, L, D/H)."""
        split = projected.view(-1, length, n, self._shape.n_heads, self._shape.head_dim)
        return split.permute(2, 0, 3, 1, 4).unbind()

    def _bias(self, width: int) -> tuple[Tensor, Tensor]:
        """Give the model's bias (H, W, W), and the same by query (W, H·W)."""
        held = self._biases.get(width)
        if held is None:
            bias = self._model.bias(width).contiguous()
            held = bias, bias.transpose(0, 1).reshape(width, -1)
            self._biases[width] = held
        return held


def _weights(layer: Layer) -> _Weights:
    joined = _input(layer.attention_in.weight, layer.attention_norm.weight)  # (D, 3D)
    dim = len(joined)
    return _Weights(
        query=joined[:, :dim].contiguous(),
        key_value=joined[:, dim:].contiguous(),
        query_key_value=joined,
        attention_out=layer.attention_out.weight.t().contiguous(),
        feed_in=_input(layer.feed_in.weight, layer.feed_norm.weight),
        feed_out=layer.feed_out.weight.t().contiguous(),
    )


def _input(weight: Tensor, scale: Tensor) -> Tensor:
    return (weight * scale).t().contiguous()


def _norm(x: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], eps=1e-6)


def _feed(layer: _Weights, x: Tensor) -> Tensor:
    return torch.addmm(x, torch.mm(_norm(x), layer.feed_in).relu_(), layer.feed_out)
