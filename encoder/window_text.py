"""The user encoder ``text``: the window written as text and read by the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoder.behaviours import behaviours, type_weights
from encoder.text_encoder import TextEncoder
from interest.bundle import DecayParameters
from interest.item import EncodedItem
from interest.window import BehaviourWindow

_CHARS_PER_TOKEN: Final = 4
#: Type and title of an event, where the title is not at hand.
_TOKENS_PER_EVENT: Final = 12


class TextUserEncoder:
    """Encodes a window as one text: exact and slow, for comparison and for strong models.

    Which behaviours count is decided as in ``decay``; a language model has no sign, so what
    pushes away is told by its type alone ("return …").
    """

    def __init__(self, text_encoder: TextEncoder, parameters: DecayParameters) -> None:
        self._text_encoder = text_encoder
        self._parameters = parameters
        self._by_type = type_weights(parameters.weights)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._text_encoder.dim

    def n_tokens(self, window: BehaviourWindow) -> int:
        """Estimate the tokens the model will read, from the lengths of the texts."""
        n_chars = sum(len(event.text) for event in window.events if event.text)
        n_tokens = _TOKENS_PER_EVENT * len(window) + n_chars // _CHARS_PER_TOKEN
        return min(n_tokens, self._text_encoder.max_tokens)

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        """Encode one micro-batch; see :class:`interest.ports.UserEncoder`.

        A window of which only events that push away are known gives zeros.
        """
        return self._text_encoder.encode([self.text_of(window, items) for window in windows])

    def text_of(self, window: BehaviourWindow, items: Mapping[str, EncodedItem]) -> str:
        """Write a window as lines of ``type: title — review or query text``, newest first.

        Empty where no behaviour that pulls is known. An event of which neither item nor text
        is known is left out: its type alone says nothing.
        """
        lines: list[str] = []
        has_pull = False
        for _, event, weight in behaviours(window, self._by_type, self._parameters):
            item = items.get(event.item_id) if event.item_id is not None else None
            said = [] if item is None else [item.item.title]
            if event.text:
                said.append(event.text)
            if said:
                lines.append(f"{event.type.value}: {' — '.join(said)}")
                has_pull = has_pull or weight > 0
        # The full stop outlasts the text preparation, which makes one line of them all.
        return ".\n".join(lines) if has_pull else ""
