"""Encoding windows on a device that may fail, with windows that may be poison.

A batch that raises is cut in halves until what fails stands alone, so the others succeed and a
device that is out of memory gets smaller batches. What fails alone is poison only if the device
works: a window of ours that must succeed is tried, and then the failing one once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from interest.errors import EncoderUnavailable
from interest.event import Event, EventType
from interest.fold import enters_window, joined, row_of, window_of
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
        self,
        window: BehaviourWindow,
        sound: BehaviourWindow | None,
        fresh: Iterable[Event],
        items: Items,
    ) -> Isolated:
        """Find the events that make a window fail, each tried on top of what is sound.

        Args:
            sound: the window as it was last encoded; None where that is not known.
            fresh: all events since then; some may have pushed others out.

        Returns:
            the window without its poison, with what that had pushed out, same revision.

        Raises:
            EncoderUnavailable: the device stopped working meanwhile; a retry is safe.
        """
        chars = self._limits.text_chars
        rows = {
            *window.rows(),
            *(row_of(e, window.subject_id, window.items, chars) for e in fresh if enters_window(e)),
        }
        base = window.with_rows(())
        if sound is not None:
            kept = base.with_rows(sound.moved(window.items).rows())
            if await self._works(kept, items):
                base = kept
            else:
                rows |= set(kept.rows())
        poison: list[Row] = []
        ordered = sorted(rows)
        # As many as a window holds do not push each other out, so each is tried.
        for first in range(0, len(ordered), self._limits.max_events):
            part = ordered[first : first + self._limits.max_events]
            base = await self._with_sound(base, part, items, poison)
        return Isolated(msgspec.structs.replace(base, revision=window.revision), tuple(poison))

    async def _with_sound(
        self, base: BehaviourWindow, rows: Sequence[Row], items: Items, poison: list[Row]
    ) -> BehaviourWindow:
        """Give a window with those of some events that can be encoded; the others are poison."""
        candidate = joined(base, base.with_rows(rows), self._limits)
        if candidate is base:
            return base
        if await self._works(candidate, items):
            return candidate
        if len(rows) == 1:
            poison += rows
            return base
        middle = len(rows) // 2
        base = await self._with_sound(base, rows[:middle], items, poison)
        return await self._with_sound(base, rows[middle:], items, poison)

    async def _works(self, window: BehaviourWindow, items: Items) -> bool:
        try:
            await self._run([window], items)
        except Exception:
            again = await self._alone(window, items)
            if isinstance(again, Exception):
                log.info("%d events cannot be encoded: %s", len(window), type(again).__name__)
                return False
        return True
