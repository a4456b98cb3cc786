"""``bundle.json``: the file that makes a folder a model bundle. No torch, so listing is quick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from interest.bundle import BUNDLE_FORMAT, BundleConfig, ModelBundle
from interest.errors import BadInput

NAME: Final = "bundle.json"


class _File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``model_id`` repeats the hash of ``config``, so that a change by hand or by a disk shows."""

    model_id: str
    config: BundleConfig


class _AnyConfig(msgspec.Struct):
    format: int


class _AnyFile(msgspec.Struct):
    """What a bundle of any format says."""

    config: _AnyConfig


def read_bundle(folder: Path) -> ModelBundle:
    """Read the description of a bundle.

    Raises:
        BadInput: no bundle, of another format, or changed since it was written.
    """
    path = folder / NAME
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{folder} is no model bundle: {NAME} cannot be read ({error.strerror or error}); "
            "name a folder that `interest train` wrote"
        ) from error
    try:
        any_file = msgspec.json.decode(raw, type=_AnyFile)
        if any_file.config.format != BUNDLE_FORMAT:
            raise BadInput(
                f"{path} is of bundle format {any_file.config.format}, and this version reads "
                f"{BUNDLE_FORMAT}: train again, or use the version that wrote it"
            )
        file = msgspec.json.decode(raw, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is damaged ({error}); copy the bundle again") from error
    bundle = ModelBundle(config=file.config)
    if bundle.model_id != file.model_id:
        raise BadInput(
            f"{path} was changed: it says {file.model_id}, and its content is {bundle.model_id}; "
            "copy the bundle again"
        )
    return bundle


def write_bundle(folder: Path, bundle: ModelBundle) -> None:
    """Write the description of a bundle into its folder."""
    file = _File(model_id=bundle.model_id, config=bundle.config)
    (folder / NAME).write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")


def find_bundles(folder: Path) -> Iterator[Path]:
    """Give the folders in ``folder`` that claim to be bundles, by name; itself where it is one.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror or error}") from error
    for path in [folder, *inside]:
        if (path / NAME).is_file():
            yield path
