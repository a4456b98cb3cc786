"""Encoding windows on a device that may fail, with windows that may be poison.

A batch that raises is cut in halves until what fails stands alone, so the others succeed and a
device that is out of memory gets smaller batches. What fails alone is poison only if the device
works: a window of ours that must succeed is tried, and then the failing one once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from interest.errors import EncoderUnavailable
from interest.event import Event, EventType
from interest.fold import joined, window_of
from interest.item import EncodedItem
from interest.ports import SparseEncoder, UserEncoder
from interest.sparse import EMPTY, SparseVector
from interest.window import BehaviourWindow, Row, WindowLimits

log = logging.getLogger(__name__)

_UNIT_TOLERANCE: Final = 1e-2
_CANARY: Final = window_of(
    "canary",
    [
        Event(
            event_id="canary",
            user_id="canary",
            type=EventType.SEARCH,
            ts=1_700_000_000_000,
            text="a red mug",
        )
    ],
)

Items = Mapping[str, EncodedItem]


class EncodedRow(NamedTuple):
    """What became of one window: the vector, (D,), and the sparse one of a model that has them."""

    vector: NDArray[np.float32]
    sparse: SparseVector


class Encoded(NamedTuple):
    """Rows by index of the window, and what the others raised, each encoded alone."""

    rows: dict[int, EncodedRow]
    failures: dict[int, Exception]


class Isolated(NamedTuple):
    """A window without the events that no encode takes, and these events."""

    window: BehaviourWindow
    poison: tuple[Row, ...]


class WindowEncoding:
    """Runs an encoder in an executor, and finds what it cannot encode.

    Args:
        sparse: of a model with sparse vectors; runs with the encoder.
    """

    def __init__(
        self,
        encoder: UserEncoder,
        executor: Executor,
        limits: WindowLimits,
        sparse: SparseEncoder | None = None,
    ) -> None:
        self._encoder = encoder
        self._sparse = sparse
        self._executor = executor
        self._limits = limits

    async def encode(self, windows: Sequence[BehaviourWindow], items: Items) -> Encoded:
        """Encode a batch; one failing window does not hurt the others.

        Raises:
            EncoderUnavailable: the device does not work; a retry is safe.
        """
        rows: dict[int, EncodedRow] = {}
        failures: dict[int, Exception] = {}

        async def encode(first: int, last: int) -> None:
            try:
                encoded = await self._run(windows[first:last], items)
            except Exception:
                if last - first == 1:
                    # At once, or a device that is gone would be asked for every window.
                    again = await self._alone(windows[first], items)
                    if isinstance(again, Exception):
                        failures[first] = again
                    else:
                        rows[first] = again
                    return
                middle = (first + last) // 2
                await encode(first, middle)
                await encode(middle, last)
            else:
                rows.update(zip(range(first, last), encoded, strict=True))

        await encode(0, len(windows))
        return Encoded(rows, failures)

    async def _alone(self, window: BehaviourWindow, items: Items) -> EncodedRow | Exception:
        """Try a window that failed alone once more; give its row, or what makes it poison.

        Raises:
            EncoderUnavailable: the device does not work, which says nothing of the window.
        """
        try:
            await self._run([_CANARY], {})
        except Exception as error:
            raise EncoderUnavailable(f"the encoder fails on every window: {error}") from error
        try:
            [row] = await self._run([window], items)
        except Exception as error:
            return error
        return row

    async def _run(self, windows: Sequence[BehaviourWindow], items: Items) -> list[EncodedRow]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._encode, windows, items)

    def _encode(self, windows: Sequence[BehaviourWindow], items: Items) -> list[EncodedRow]:
        matrix = self._encoder.encode(windows, items)  # (B, D)
        lengths = np.linalg.norm(matrix, axis=1)
        # NaN compares false.
        if not np.all((lengths == 0) | (np.abs(lengths - 1) <= _UNIT_TOLERANCE)):
            raise FloatingPointError("the encoder gave NaN, infinity or no unit vector")
        sparse = [EMPTY] * len(windows)
        if self._sparse is not None:
            sparse = self._sparse.encode(windows, items)
        return [EncodedRow(*row) for row in zip(matrix, sparse, strict=True)]

    async def isolate(
        self, window: BehaviourWindow, sound: BehaviourWindow | None, items: Items
    ) -> Isolated:
        """Find the events that make a window fail, each tried on top of what is sound.

        Args:
            sound: the window as it was last encoded; None where that is not known.

        Returns:
            the window without its poison, with what that had pushed out, same revision.

        Raises:
            EncoderUnavailable: the device stopped working meanwhile; a retry is safe.
        """
        base = window.with_rows(())
        if sound is not None and await self._works(sound, items):
            base = base.with_rows(sound.moved(window.items).rows())
        poison: list[Row] = []
        for row in window.rows():
            candidate = joined(base, window.with_rows([row]), self._limits)
            if candidate is base:
                continue
            if await self._works(candidate, items):
                base = candidate
            else:
                poison.append(row)
        return Isolated(msgspec.structs.replace(base, revision=window.revision), tuple(poison))

    async def _works(self, window: BehaviourWindow, items: Items) -> bool:
        try:
            await self._run([window], items)
        except Exception:
            again = await self._alone(window, items)
            if isinstance(again, Exception):
                log.info("%d events cannot be encoded: %s", len(window), type(again).__name__)
                return False
        return True
