"""Text vectors of a catalogue, encoded once and kept in a folder."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoder.text_encoder import TextEncoder
from interest.errors import BadInput

_TEXTS_AT_ONCE: Final = 512

#: Told how many texts are encoded, and of how many.
Progress = Callable[[int, int], None]


def default_cache() -> Path:
    """Give the folder where this user's programs keep what can be made again."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "interest-updater"
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to pass over a relative path.
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return folder / "interest-updater"


def text_vectors(
    encoder: TextEncoder, texts: Sequence[str], folder: Path, progress: Progress
) -> NDArray[np.float32]:
    """Give the unit vectors of texts, (N, D), from the folder where it has them.

    A file holds the vectors of one list of texts by one model; its name is the hash of both. A
    file that is damaged is made again.

    Raises:
        EncoderUnavailable: the device failed; a retry is safe.
        BadInput: the folder cannot be written.
    """
    distinct = list(dict.fromkeys(texts))
    row_of = {text: row for row, text in enumerate(distinct)}
    path = folder / f"text-{_key(encoder, distinct)}.npy"
    vectors = _read(path, (len(distinct), encoder.dim))
    if vectors is None:
        vectors = np.zeros((len(distinct), encoder.dim), np.float32)
        for first in range(0, len(distinct), _TEXTS_AT_ONCE):
            batch = distinct[first : first + _TEXTS_AT_ONCE]
            vectors[first : first + len(batch)] = encoder.encode(batch)
            progress(first + len(batch), len(distinct))
        _write(path, vectors)
    return vectors[[row_of[text] for text in texts]]


def _key(encoder: TextEncoder, texts: Sequence[str]) -> str:
    # Where the model lies is no part of what it is.
    described = msgspec.structs.replace(encoder.described, reference="")
    digest = hashlib.blake2b(digest_size=16)
    digest.update(msgspec.json.encode((described, texts), order="deterministic"))
    return digest.hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(vectors, np.ndarray) or vectors.shape != shape:
        return None
    return vectors if vectors.dtype == np.float32 else None


def _write(path: Path, vectors: NDArray[np.float32]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: whoever is stopped in between leaves no half file to be read.
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".npy")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, vectors)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise BadInput(
            f"{path.parent} cannot be written ({error.strerror or error}); name another folder "
            "with --cache"
        ) from error
