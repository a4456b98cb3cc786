"""The environment of the peers that the product cannot be installed beside.

Bytewax and Quix Streams ask for other versions of librdkafka and pydantic than the product has, so
they live in ``benchmarks/out/peers``: made at first use from the dependency group ``peers``, and
made again when that group changes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from benchmarks.servers import Unavailable

ROOT: Final = Path(__file__).parent.parent
_FOLDER: Final = ROOT / "benchmarks" / "out" / "peers"
_PATIENCE_S: Final = 600.0


def peers_python() -> Path:
    """Give the interpreter that has the peers.

    Raises:
        Unavailable: they could not be installed; without a network, mostly.
    """
    python, made_of = _FOLDER / "bin" / "python", _FOLDER / "made-of"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = "\n".join(project["dependency-groups"]["peers"])
    if made_of.exists() and made_of.read_text() == wanted:
        return python
    print(f"installing the peers into {_FOLDER.relative_to(ROOT)}", file=sys.stderr)
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    for command in (
        (sys.executable, "-m", "venv", "--clear", _FOLDER),
        (*pip, "--upgrade", "pip>=25.1"),
        (*pip, "--group", "peers"),
    ):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise Unavailable(f"the peers could not be installed: {lines[-1] if lines else ''}")
    made_of.write_text(wanted)
    return python


def environment() -> dict[str, str]:
    """Give the peers the product's decoder, and nothing of the product's packages."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
