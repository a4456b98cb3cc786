"""What a training run leaves behind after every epoch, so that it can go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from interest.errors import BadInput

_STATE: Final = "checkpoint.pt"
_LOG: Final = "metrics.jsonl"
_TEXTS: Final = "texts.npy"


class Checkpoint:
    """The folder of a run that is not finished: state, metrics log, text vectors.

    Args:
        key: the hash of all that decides the run: a state of another run is refused.
    """

    def __init__(self, folder: Path, key: str, *, resume: bool) -> None:
        """Open the folder.

        Raises:
            BadInput: it holds a run and ``resume`` is false, or another run than this one, or it
                cannot be written.
        """
        self._folder = folder
        self._key = key
        self.state: dict[str, Any] | None = None
        try:
            folder.mkdir(exist_ok=True)
            if (folder / _STATE).exists():
                self.state = self._read(resume)
        except OSError as error:
            raise BadInput(f"{folder} cannot be written: {error.strerror or error}") from error

    def _read(self, resume: bool) -> dict[str, Any]:
        if not resume:
            raise BadInput(
                f"{self._folder} holds a run that was interrupted: --resume goes on with it; "
                "remove the folder to begin anew"
            )
        try:
            state: dict[str, Any] = torch.load(self._folder / _STATE, weights_only=True)
            found = state["key"]
        except Exception as error:  # whatever pickle, zipfile or torch raise
            raise BadInput(
                f"{self._folder / _STATE} is damaged ({type(error).__name__}); remove the folder "
                "to begin anew"
            ) from error
        if found != self._key:
            raise BadInput(
                f"{self._folder} holds a run with another log, catalogue, seed or parameters; give "
                "the same ones, or remove the folder to begin anew"
            )
        return state

    def save(self, state: dict[str, Any], line: dict[str, Any]) -> None:
        """Keep the state after an epoch, and its line of the metrics log, both or none.

        The lines are part of the state: a kill between two writes loses none and doubles none.
        """
        held = [] if self.state is None else self.state["log"]
        self.state = state | {"key": self._key, "log": [*held, line]}
        torch.save(self.state, self._folder / (_STATE + ".new"))
        (self._folder / (_STATE + ".new")).replace(self._folder / _STATE)
        lines = "".join(json.dumps(line) + "\n" for line in self.state["log"])
        (self._folder / _LOG).write_text(lines)

    def texts(self, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Give the text vectors; made once, since that takes as long as some epochs."""
        path = self._folder / f"{self._key}.{_TEXTS}"
        if path.exists():
            return np.asarray(np.load(path), np.float32)
        made = make()
        with (self._folder / (_TEXTS + ".new")).open("wb") as file:
            np.save(file, made)
        (self._folder / (_TEXTS + ".new")).replace(path)
        return made

    def close(self, log_to: Path) -> None:
        """Keep the metrics log in ``log_to`` and remove the rest: the run is finished."""
        shutil.copyfile(self._folder / _LOG, log_to)
        shutil.rmtree(self._folder)
