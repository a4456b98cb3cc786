"""What recommendations are worth: ``python -m benchmarks.quality FOLDER`` (``make evaluate``).

Trains the default bundle with three seeds, evaluates it beside the encoder without training and the
baselines on the test targets of leave-one-out, and writes ``benchmarks/quality.json``; vectors and
best items lie in ``benchmarks/out/quality``, bundles in ``benchmarks/out/bundles``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from benchmarks.machine import commit, this_machine
from benchmarks.quality_table import QUALITY
from encoder.evaluation.dataset import read_dataset
from encoder.evaluation.rows import ROWS
from interest.bundle_file import read_bundle
from interest.errors import InterestError
from interest.settings import Settings
from interest_cli.console import err, out, settings
from interest_cli.evaluating import Request, run_evaluation
from interest_cli.evaluation_report import report_of, show, write_files
from interest_cli.training import METRICS_LOG, TrainingRun, train_bundle

_OUT: Final = QUALITY.parent / "out"
_SEEDS: Final = (0, 1, 2)
_FIGURES: Final = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "untied_ndcg@10")
_NO_DATA: Final = (
    "make evaluate DATA=folder needs a folder with items.tsv and sequences.tsv, as of Beauty "
    "(Amazon 2014, 5-core): sequences from github.com/RUCAIBox/CIKM2020-S3Rec, times from "
    "KingGugu/TiCoSeRec, titles from dh-r/LLM-Sequential-Recommendation; the format: "
    "docs/evaluation.md"
)


def main(arguments: Sequence[str]) -> int:
    """Train, evaluate, write; exit code 2 where there is no data or it cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", allow_abbrev=False)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument(
        "--bundle", type=Path, action="append", help="evaluate these and train nothing"
    )
    told = parser.parse_args(arguments)
    if told.folder is None:
        print(_NO_DATA, file=sys.stderr)
        return 2
    try:
        measure(told.folder, told.bundle or _trained(told.folder, settings()), settings())
    except InterestError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(folder: Path, bundles: Sequence[Path], options: Settings) -> None:
    """Evaluate bundles of several seeds and all rows without training; write what was found."""
    request = Request("leave-one-out", "test", (), bundles, None)
    evaluated = run_evaluation(options, read_dataset(folder), request)
    report = report_of(evaluated.evaluation)
    show(report, out)
    write_files(report, evaluated, _OUT / "quality")
    trained = _trained_with(bundles)
    found = {
        "dataset": report.dataset,
        "targets": report.targets,
        "rows": [
            {
                "name": row["name"],
                **{figure: row.get(figure) for figure in _FIGURES},
                **(_UNTRAINED if row["name"] in ROWS else trained),
            }
            for row in report.rows
        ],
        "machine": asdict(this_machine()),
        "commit": commit(),
    }
    QUALITY.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    err.print(f"written to {QUALITY.parent.name}/{QUALITY.name} and {_OUT.name}/quality")


def _trained(folder: Path, options: Settings) -> list[Path]:
    """Train the default bundle with each seed; a run that was interrupted goes on."""
    bundles = [_OUT / "bundles" / f"seed-{seed}" for seed in _SEEDS]
    for seed, bundle in zip(_SEEDS, bundles, strict=True):
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.parent.mkdir(parents=True, exist_ok=True)
        err.print(f"training with seed {seed}")
        run = TrainingRun(
            log=folder, items=None, output=bundle, config=None, seed=seed,
            resume=bundle.with_name(f"{bundle.name}.training").exists(),
            leave_out=1, hold_out_items=None, licences=(),
        )  # fmt: skip
        train_bundle(run, options)
    return bundles


_UNTRAINED: Final[dict[str, Any]] = {"seeds": [], "minutes": 0.0}


def _trained_with(bundles: Sequence[Path]) -> dict[str, Any]:
    """Give the seeds, and the mean minutes that the epochs of one took."""
    records = [read_bundle(bundle).config.training for bundle in bundles]
    logs = [(bundle / METRICS_LOG).read_text().splitlines() for bundle in bundles]
    seconds = [sum(json.loads(line)["seconds"] for line in log) for log in logs]
    return {
        "seeds": [record.seed for record in records if record is not None],
        "minutes": round(fmean(seconds) / 60, 1) if seconds else 0.0,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
