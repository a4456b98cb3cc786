"""The folder in which one worker keeps the windows that it has not used lately."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from interest.errors import BadInput

_PREFIX: Final = "interest-windows-"
_LOCK: Final = "in-use"


class WindowFolder:
    """Gives each partition's windows a folder of their own, with every assignment a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)

    def new(self, partition: int) -> Path:
        """Name a folder that does not exist."""
        return self._path / f"{partition}-{next(self._numbers)}"


@contextmanager
def window_folder(parent: str) -> Iterator[WindowFolder]:
    """Make a folder for the length of the block; remove those that dead workers left.

    Args:
        parent: where; empty for the system's place for temporary files.

    Raises:
        BadInput: no folder can be made there, or RocksDB is not installed.
    """
    try:
        import rocksdict  # noqa: F401
    except ImportError as error:
        raise BadInput(
            "INTEREST_WINDOW_STORE=rocksdb needs an extra: pip install 'interest-updater[rocksdb]'"
        ) from error
    import fcntl  # not on Windows, where the other store works

    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent or None))
    except OSError as error:
        raise BadInput(f"INTEREST_WINDOW_FOLDER: {error}") from error
    try:
        with (path / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_abandoned(path)
            yield WindowFolder(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_abandoned(ours: Path) -> None:
    """Remove the folders of workers that were killed: nobody holds their lock."""
    import fcntl

    for other in ours.parent.glob(f"{_PREFIX}*"):
        if other == ours:
            continue
        try:
            with (other / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)
        except OSError:
            continue  # in use, or another user's, or just being made
