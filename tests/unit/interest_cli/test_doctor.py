"""The doctor notices when our generic package names are somebody else's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from interest_cli import doctor
from interest_cli.doctor import PACKAGES, check_packages, check_python


def test_a_clean_environment_is_fine() -> None:
    assert check_packages().ok
    assert check_python().ok


def test_another_distribution_with_one_of_our_names_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owners = {name: ["interest-updater"] for name in PACKAGES}
    owners["store"] = ["interest-updater", "some-shop"]
    monkeypatch.setattr(doctor, "packages_distributions", lambda: owners)
    finding = check_packages()
    assert not finding.ok
    assert "store is also installed by some-shop" in finding.text
    assert "environment of its own" in finding.text


def test_a_module_that_shadows_ours_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shadow = tmp_path / "encoder"
    shadow.mkdir()
    (shadow / "__init__.py").write_text("")
    for name in [n for n in sys.modules if n == "encoder" or n.startswith("encoder.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    finding = check_packages()
    assert not finding.ok
    assert f"encoder is taken from {shadow}" in finding.text
