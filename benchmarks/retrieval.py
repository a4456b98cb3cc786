"""Top 10 of 100,000 items: in process, over our HTTP API, and on a Qdrant server.

    python -m benchmarks retrieval [--items 100000] [--dims 64 384] [--subjects …]

Every subject runs in a process of its own, so that its memory is its own. A row says what a caller
sees, who waits for each answer: one caller, four at once, or one while the catalogue changes.
Queries exclude 50 items as those of a shopper with a full window do. Recall compares with the
exhaustive answer, by score. The Qdrant server is the one of ``QDRANT_URL`` (and ``QDRANT_API_KEY``,
``QDRANT_GRPC_PORT``); without it its rows are skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.item_space import item_vectors, narrowed, title_vectors
from benchmarks.results import Measurement, Report
from benchmarks.retrieval_api import http_times
from benchmarks.retrieval_searches import Sizes
from benchmarks.retrieval_subjects import OURS, SUBJECTS
from benchmarks.servers import Unavailable

NAME: Final = "retrieval"
HTTP: Final = "interest serve, over HTTP"

#: Property → its runs; the unit stands in the name, in brackets.
Row = Mapping[str, Sequence[float]]


def run(arguments: Sequence[str]) -> Report:
    """Measure every subject at every dimension."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 384])
    parser.add_argument("--calls", type=int, default=300, help="per run; there are three runs")
    choices = (*SUBJECTS, HTTP)
    parser.add_argument("--subjects", nargs="+", choices=choices, default=choices)
    options = parser.parse_args(arguments)
    rows: list[Measurement] = []
    values: dict[str, float | str] = {}
    titles = title_vectors()
    with tempfile.TemporaryDirectory(prefix="bench-retrieval-") as folder:
        for dim in options.dims:
            path = Path(folder) / f"{dim}.npy"
            np.save(path, item_vectors(narrowed(titles, dim), options.items))
            ours: Row = {}
            for subject in options.subjects:
                named = f"{subject}, {options.items:,} × {dim}"
                print(f"{NAME}: {named}", file=sys.stderr)
                try:
                    row = _measured(subject, Sizes(path, options.calls))
                except Unavailable as error:
                    rows.append(_skipped(named, str(error)))
                    continue
                ours = row if subject == OURS else ours
                rows += _rows(named, row, {} if row is ours else ours)
                # The target counts what is slowest: the widest vectors.
                if dim == max(options.dims) and subject in (OURS, HTTP):
                    key = "process" if subject == OURS else "http"
                    values[key] = _worst_p99(row)
    return Report(tuple(rows), values)


def _measured(subject: str, sizes: Sizes) -> Row:
    """Measure one subject.

    Raises:
        Unavailable: what it needs is not here.
    """
    if subject == HTTP:
        return http_times(sizes)
    if subject.startswith("Qdrant server"):
        if "QDRANT_URL" not in os.environ:
            raise Unavailable("no Qdrant server: set QDRANT_URL")
        if subject.endswith("gRPC") and "QDRANT_GRPC_PORT" not in os.environ:
            raise Unavailable("no gRPC port of a Qdrant server: set QDRANT_GRPC_PORT")
    if (
        subject == "qdrant-edge"
        and subprocess.run(
            [sys.executable, "-c", "import qdrant_edge"], stderr=subprocess.DEVNULL, check=False
        ).returncode
    ):
        raise Unavailable("qdrant-edge-py is not installed")
    command = [sys.executable, "-m", "benchmarks.retrieval_searches", subject]
    command += [str(sizes.path), str(sizes.calls)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    row: Row = json.loads(done.stdout)
    return row


def _worst_p99(row: Row) -> float:
    """Give the greatest p99 of one caller, over all filters."""
    return max(
        statistics.median(runs)
        for name, runs in row.items()
        if name.endswith("p99 (ms)") and "at once" not in name and "while" not in name
    )


def _rows(subject: str, row: Row, ours: Row) -> list[Measurement]:
    rows: list[Measurement] = []
    for labelled, runs in row.items():
        name, _, unit = labelled.rstrip(")").rpartition(" (")
        value = statistics.median(runs)
        # How many times ours is as fast; above 1 ours is better.
        ratio = value / statistics.median(ours[labelled]) if labelled in ours else None
        rows.append(
            Measurement(
                benchmark=NAME, subject=subject, name=name, unit=unit, value=value,
                runs=tuple(runs), ratio=ratio if unit == "ms" else None,
                ratio_to=OURS if ratio is not None and unit == "ms" else "",
            )
        )  # fmt: skip
    return rows


def _skipped(subject: str, why: str) -> Measurement:
    return Measurement(benchmark=NAME, subject=subject, name="top 10", unit="ms", skipped=why)
