"""A machine with a GPU, torch and numpy, and nothing else of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
RUN = """
import sys
for name in ("msgspec", "transformers", "safetensors", "rich", "psutil", "pytest", "hypothesis"):
    sys.modules[name] = None  # importing it raises
import unittest
sys.path.insert(0, "tests/cuda")
import test_sequence_cuda
tests = unittest.defaultTestLoader.loadTestsFromModule(test_sequence_cuda)
done = unittest.TextTestRunner().run(tests)
assert done.wasSuccessful() and done.testsRun == 2
from benchmarks.user_encode import run
report = run(["--runs", "1", "--windows", "20", "--dims", "64", "--data", "nowhere"])
assert report.values["padded"] > 0
assert "not installed" in report.values["text"]
assert {row.subject for row in report.measurements} >= {"Beauty (synthetic), d = 64"}
"""


def test_the_gpu_tests_and_the_benchmark_need_torch_and_numpy_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
