"""The sequence encoder: causal self-attention over a window. torch and numpy alone.

Self-attention as in SASRec (Kang and McAuley 2018): the residual stream of a position starts with
its item and ends as the vector of what comes next, in the space of the items. Different from it:

- an item is the learned projection of its text vector plus the embedding of its id, which is zero
  for an item that training did not see, so that the model reads items it never saw;
- no absolute positions: a learned bias per head and distance is added to the attention scores, the
  same in all layers (T5, Raffel et al. 2020), so that nothing depends on where a window was cut;
- type, rating and the time since the event before are embedded and added to the item;
- before the first layer an optional causal filter per dimension mixes an event with the few before
  it (as the convolutions of Primer, So et al. 2021, there inside attention);
- RMSNorm before each part (Zhang and Sennrich 2019), no biases, ReLU: little work per token.

Every layer is causal, so the output at a position is the user vector of the window that ends
there: training reads all of them, and padding behind a window is never seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

#: Types of event, in the order of their codes; ``interest.event`` has ten of them.
N_TYPES: Final = 10
#: 0 is no rating, then one per half point from 0 to 5.
N_RATINGS: Final = 12
#: 0 is the first event of the window, then one per doubling of the seconds since the one before.
N_GAPS: Final = 33
N_CODES: Final = N_TYPES * N_RATINGS * N_GAPS
#: Longest distance with a bias of its own; farther events share it.
N_DISTANCES: Final = 64
_INIT_STD: Final = 0.02
_FEED_FORWARD: Final = 4

Codes = TypeVar("Codes", Tensor, NDArray[np.int64])


@dataclass(frozen=True)
class SequenceShape:
    """The sizes of a model. ``dim`` is the length of item and user vectors."""

    text_dim: int
    dim: int = 64
    n_layers: int = 2
    head_dim: int = 32
    #: Items with an embedding of their own: those that training saw.
    n_items: int = 0
    #: Taps of the causal filter, the event itself included; 0 for no filter.
    n_taps: int = 0

    def __post_init__(self) -> None:
        if self.dim % self.head_dim or min(self.dim, self.n_layers, self.text_dim) < 1:
            raise ValueError(
                f"sequence model of dim {self.dim}, heads of {self.head_dim}, {self.n_layers} "
                "layers: dim must be a multiple of the head's, and none below 1"
            )
        if min(self.n_items, self.n_taps) < 0:
            raise ValueError("sequence model: n_items and n_taps must not be negative")

    @property
    def n_heads(self) -> int:
        """Attention heads of a layer."""
        return self.dim // self.head_dim


class Layer(nn.Module):
    """Causal attention and a feed-forward part, each on a normalised copy of the stream."""

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__()
        dim = shape.dim
        self.n_heads = shape.n_heads
        self.attention_norm = nn.RMSNorm(dim, eps=1e-6)
        self.attention_in = nn.Linear(dim, 3 * dim, bias=False)
        self.attention_out = nn.Linear(dim, dim, bias=False)
        self.feed_norm = nn.RMSNorm(dim, eps=1e-6)
        self.feed_in = nn.Linear(dim, _FEED_FORWARD * dim, bias=False)
        self.feed_out = nn.Linear(_FEED_FORWARD * dim, dim, bias=False)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Give the stream after this layer: (B, L, D) and a mask (B or 1, H, L, L) → (B, L, D)."""
        n, length, dim = x.shape
        projected = self.attention_in(self.attention_norm(x))  # (B, L, 3D)
        heads = projected.view(n, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads  # (B, H, L, D/H) each
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.dropout(self.attention_out(seen.transpose(1, 2).reshape(n, length, dim)))
        hidden = self.dropout(functional.relu(self.feed_in(self.feed_norm(x))))  # (B, L, 4D)
        after: Tensor = x + self.dropout(self.feed_out(hidden))
        return after


class SequenceModel(nn.Module):
    """Item tower and user encoder of one space; see the module for the architecture."""

    def __init__(self, shape: SequenceShape, seed: int = 0) -> None:
        """Make a model with random weights, the same for the same seed."""
        super().__init__()
        self.shape = shape
        dim = shape.dim
        self.text = nn.Linear(shape.text_dim, dim, bias=False)
        self.ids = nn.Embedding(shape.n_items, dim)
        self.item_scale = nn.Parameter(torch.tensor(math.sqrt(dim)))
        self.types = nn.Embedding(N_TYPES, dim)
        self.ratings = nn.Embedding(N_RATINGS, dim)
        self.gaps = nn.Embedding(N_GAPS, dim)
        self.taps = nn.Parameter(torch.zeros(shape.n_taps, dim))
        self.distances = nn.Parameter(torch.zeros(shape.n_heads, N_DISTANCES))
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.n_layers))
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.dropout = nn.Dropout(0.0)
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for name, weight in self.named_parameters():
            if name == "text.weight":
                # Keeps lengths and angles roughly (Johnson and Lindenstrauss).
                weight.normal_(0, 1 / math.sqrt(self.shape.dim), generator=generator)
            elif name == "taps":
                weight[:1] = 1  # the event itself alone: no filter yet
            elif name == "distances" or weight.dim() == 2:
                weight.normal_(0, _INIT_STD, generator=generator)

    def set_dropout(self, share: float) -> None:
        """Set the share that dropout takes in training mode (Srivastava et al. 2014)."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share

    def items(self, texts: Tensor, ids: Tensor | None = None) -> Tensor:
        """Give the vectors of items, as they are retrieved by and as the user encoder reads them.

        Args:
            texts: (N, E) text vectors; zeros for an item without text.
            ids: (N,) number of each item's embedding, -1 for none; None where no item has one.

        Returns:
            (N, D), rows of unit length; zeros for an item with neither text nor id.
        """
        vectors: Tensor = self.text(texts)
        if ids is not None and self.shape.n_items:
            known = (ids >= 0)[:, None]  # (N, 1)
            vectors = vectors + self.ids(ids.clamp(min=0)) * known
        return functional.normalize(vectors, dim=-1)

    def event_table(self) -> Tensor:
        """Give what each code of :func:`event_codes` adds to its item: (N_CODES, D)."""
        kinds = self.types.weight[:, None] + self.ratings.weight  # (types, ratings, D)
        return (kinds[:, :, None] + self.gaps.weight).view(N_CODES, -1)

    def bias(self, length: int) -> Tensor:
        """Give what is added to the attention scores: (H, L, L), -inf for what comes later."""
        places = torch.arange(length, device=self.distances.device)
        distance = places[:, None] - places  # (L, L), query minus key
        bias = self.distances[:, distance.clamp(0, N_DISTANCES - 1)]  # (H, L, L)
        return bias.masked_fill(distance < 0, -math.inf)

    def forward(self, vectors: Tensor, codes: Tensor, segments: Tensor | None = None) -> Tensor:
        """Give the user vector after each event.

        Args:
            vectors: (B, L, D) items, each row oldest first, padded behind.
            codes: (B, L) of :func:`event_codes`.
            segments: (B, L) which window each event belongs to, where several windows lie one
                after the other in a row; None for one window a row.

        Returns:
            (B, L, D) in float32, unit length; what stands at padding means nothing.
        """
        x = vectors * self.item_scale + functional.embedding(codes, self.event_table())
        x = self.dropout(filtered(x, self.taps, segments))
        mask = self.bias(vectors.shape[1])[None]  # (1, H, L, L)
        return self.attend(x, mask if segments is None else apart(mask, segments))

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """Run the layers: (B, L, D) and a mask (B or 1, H, L, L) → (B, L, D), see forward."""
        for layer in self.layers:
            x = layer(x, mask)
        return functional.normalize(self.norm(x).float(), dim=-1)


def filtered(x: Tensor, taps: Tensor, segments: Tensor | None = None) -> Tensor:
    """Give each event mixed with those before it: Σₖ taps[k] ⊙ x[t - k] within its window.

    Args:
        x: (B, L, D).
        taps: (K, D), tap 0 for the event itself; of none, x comes back as it is.
        segments: (B, L), see :meth:`SequenceModel.forward`.
    """
    if not len(taps):
        return x
    mixed = x * taps[0]
    for k in range(1, min(len(taps), x.shape[1])):
        before = x[:, :-k] * taps[k]  # (B, L - k, D)
        if segments is not None:
            before = before * (segments[:, k:] == segments[:, :-k])[..., None]
        mixed = mixed + functional.pad(before, (0, 0, k, 0))
    return mixed


def apart(mask: Tensor, segments: Tensor) -> Tensor:
    """Give the mask (B, H, L, L) that keeps the segments (B, L) of a row from each other."""
    other = segments[:, None, :, None] != segments[:, None, None, :]  # (B, 1, L, L)
    return mask.masked_fill(other, -math.inf)


def event_codes(types: Codes, ratings: Codes, gaps: Codes) -> Codes:
    """Join type, rating and gap (each of its own N_…) into one number per event."""
    return (types * N_RATINGS + ratings) * N_GAPS + gaps
