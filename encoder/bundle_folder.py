"""The weights of a model bundle: the safetensors files beside its ``bundle.json``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from encoder.sequence_weights import LoadedSequence, load_sequence, save_sequence
from encoder.sparse_space import SparseParts
from encoder.text_features import TextFeatures, load_text_features, save_text_features
from interest.bundle import ModelBundle
from interest.bundle_file import read_bundle, write_bundle
from interest.errors import BadInput

FEATURES: Final = "features.safetensors"
SEQUENCE: Final = "sequence.safetensors"
SPARSE: Final = "sparse.safetensors"


class BundleParts(NamedTuple):
    """A bundle and what its files hold; None for what it does without."""

    bundle: ModelBundle
    features: TextFeatures | None = None
    sequence: LoadedSequence | None = None
    sparse: SparseParts | None = None


def load_bundle_folder(folder: Path) -> BundleParts:
    """Read a bundle and hold every number against the hashes in its description.

    Raises:
        BadInput: no bundle, damaged, or of another format or dimension; says what to do.
    """
    bundle = read_bundle(folder)
    config = bundle.config
    features, sequence, sparse = None, None, None
    if config.features is not None:
        features = load_text_features(folder / FEATURES)
        found = (features.fingerprint, features.dim)
        _check(folder / FEATURES, (config.features.fingerprint, config.features.dim), found)
        if len(features.mean) != config.text_model.dim:
            raise BadInput(
                f"{folder / FEATURES} reads text vectors of {len(features.mean)} numbers, and the "
                f"bundle's text model gives {config.text_model.dim}: copy the bundle again"
            )
    if config.sequence is not None:
        text_dim = config.text_model.dim if features is None else features.dim
        sequence = load_sequence(folder / SEQUENCE, text_dim=text_dim)
        described = sequence.described
        _check(
            folder / SEQUENCE,
            (config.sequence.fingerprint, config.sequence.dim),
            (described.fingerprint, described.dim),
        )
        if config.sequence.text is not None and config.sequence.text.dim > text_dim:
            raise BadInput(
                f"{folder}: a text part of {config.sequence.text.dim} numbers, and the text has "
                f"{text_dim}: copy the bundle again"
            )
    if config.sparse is not None:
        sparse = SparseParts.load(folder / SPARSE)
        for described_n, n in (
            (config.sparse.n_terms, len(sparse.terms.vocabulary)),
            (config.sparse.n_linked, len(sparse.item_ids)),
        ):
            _check(
                folder / SPARSE, (config.sparse.fingerprint, described_n), (sparse.fingerprint, n)
            )
    return BundleParts(bundle, features, sequence, sparse)


def save_bundle_folder(folder: Path, parts: BundleParts) -> None:
    """Write a bundle; the folder is there whole or not at all.

    Raises:
        BadInput: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise BadInput(f"{folder} exists; choose another folder, or remove it")
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            if parts.features is not None:
                save_text_features(made / FEATURES, parts.features)
            if parts.sequence is not None:
                save_sequence(made / SEQUENCE, parts.sequence.model, parts.sequence.item_ids)
            if parts.sparse is not None:
                parts.sparse.save(made / SPARSE)
            write_bundle(made, parts.bundle)
            load_bundle_folder(made)  # what cannot be read again must not look finished
            made.chmod(0o755)  # mkdtemp's folder is for its owner alone
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror or error}") from error


def _check(path: Path, described: tuple[str, int], found: tuple[str, int]) -> None:
    if described[1] != found[1]:
        raise BadInput(
            f"{path} is of {found[1]} dimensions, and its bundle says {described[1]}: copy the "
            "bundle again"
        )
    if described[0] != found[0]:
        raise BadInput(
            f"{path} is damaged, or of another bundle: its numbers have the hash {found[0]}, and "
            f"the bundle says {described[0]}; copy the bundle again"
        )
