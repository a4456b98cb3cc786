"""The sequence encoder on a GPU. Needs torch, numpy and the standard library alone:

    python -m unittest tests/cuda/test_sequence_cuda.py

Skipped, and said so, where torch finds no device.
"""

from __future__ import annotations

import unittest

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.sequence_cuda import StagedSequence
from encoder.sequence_model import N_CODES, SequenceModel, SequenceShape
from encoder.sequence_packed import PackedSequence
from encoder.sequence_rows import Ints

Batch = tuple[NDArray[np.float32], Ints, Ints, Ints]


def batch(lengths: Ints, dim: int) -> Batch:
    """Give vectors, items, codes and lengths of a micro-batch."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    n = int(lengths.sum())
    return vectors, rng.integers(0, 500, n), rng.integers(0, N_CODES, n), lengths


@unittest.skipUnless(torch.cuda.is_available(), "torch finds no CUDA device")
class OnCuda(unittest.TestCase):
    """Against the CPU, with weights as large as after training."""

    def setUp(self) -> None:
        self.device = torch.device("cuda")

    def model(self, dim: int) -> SequenceModel:
        model = SequenceModel(SequenceShape(text_dim=8, dim=dim), seed=1)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "layers" in name and weight.dim() == 2:
                    weight.normal_(0, 0.5 / dim**0.5, generator=generator)
        return model

    def test_half_precision_gives_the_cpus_vectors(self) -> None:
        for dim in (64, 128, 256):
            model = self.model(dim)
            on_cpu, on_gpu = PackedSequence(model), StagedSequence(model, self.device)
            for longest, n in ((3, 1), (50, 1), (50, 300), (50, 4000), (90, 50)):
                lengths = np.random.default_rng(longest).integers(0, longest + 1, n)
                lengths[0] = longest
                expected = on_cpu.encode(*batch(lengths, dim))
                found = on_gpu.encode(*batch(lengths, dim))
                assert np.isfinite(found).all()
                cosines = (expected * found).sum(1)[lengths > 0]
                assert cosines.min() >= 0.9999, f"dim {dim}, {n} of {longest}"
                assert not found[lengths == 0].any()

    def test_a_window_gives_one_vector_whatever_the_batch_and_again_and_again(self) -> None:
        runner = StagedSequence(self.model(64), self.device)
        lengths = np.random.default_rng(3).integers(1, 51, 3000)
        vectors, items, codes, _ = batch(lengths, 64)
        together = runner.encode(vectors, items, codes, lengths)
        for _ in range(3):
            again = runner.encode(vectors, items, codes, lengths)
            np.testing.assert_array_equal(together, again)
        firsts = np.cumsum(lengths) - lengths
        for i in range(0, 3000, 300):
            own = slice(firsts[i], firsts[i] + lengths[i])
            alone = runner.encode(vectors, items[own], codes[own], lengths[i : i + 1])
            assert float(alone[0] @ together[i]) >= 0.9999


if __name__ == "__main__":
    unittest.main()
