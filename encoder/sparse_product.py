"""Dot products of sparse users with a whole catalogue."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.title_terms import SparseRows


class SparseProduct:
    """Scores a catalogue, (N, V) sparse, for sparse users."""

    def __init__(self, items: SparseRows) -> None:
        self._n_dims = int(items.terms.max(initial=0)) + 1
        item = np.repeat(np.arange(len(items.starts) - 1), np.diff(items.starts))
        self._items = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([item, items.terms])),
            torch.from_numpy(items.weights),
            (len(items.starts) - 1, self._n_dims),
            check_invariants=True,
        ).coalesce()

    def scores(self, users: SparseRows) -> NDArray[np.float32]:
        """Give the dot product of each user with each item, (B, N)."""
        n_users = len(users.starts) - 1
        dense = np.zeros((self._n_dims, n_users), np.float32)  # (V, B)
        owner = np.repeat(np.arange(n_users), np.diff(users.starts))
        known = users.terms < self._n_dims
        dense[users.terms[known], owner[known]] = users.weights[known]
        with torch.inference_mode():
            # (N, V) @ (V, B) -> (N, B)
            scores = torch.sparse.mm(self._items, torch.from_numpy(dense))
        return np.ascontiguousarray(scores.numpy().T)


def rows_between(rows: SparseRows, part: slice) -> SparseRows:
    """Give some rows in a row."""
    first, stop, _ = part.indices(len(rows.starts) - 1)
    begin, end = int(rows.starts[first]), int(rows.starts[stop])
    return SparseRows(
        rows.starts[first : stop + 1] - begin, rows.terms[begin:end], rows.weights[begin:end]
    )
