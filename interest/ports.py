"""The ports between the packages: what each needs of the others, and nothing more.

``streams``, ``encoder``, ``store`` and ``interest_api`` know each other only through these;
``interest_cli`` chooses what stands behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from interest.bundle import LiveModel, RetrievalPath
from interest.forgetting import Marker
from interest.item import ANY_ITEM, EncodedItem, Item, ItemFilter, ItemQuery, ScoredItem
from interest.recent import RecentBehaviour
from interest.sparse import SparseVector
from interest.vector import Token, UserVector, VectorHead
from interest.window import BehaviourWindow


class ItemEncoder(Protocol):
    """Turns items and short texts into vectors of one space."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Encode items; (N, D), unit rows, row i belongs to items[i].

        Raises:
            EncoderUnavailable: the device failed; a retry is safe.
        """

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; (N, D), unit rows; an empty text gives a row of zeros."""


class UserEncoder(Protocol):
    """Turns behaviour windows into user vectors of the space of one model bundle."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def n_tokens(self, window: BehaviourWindow) -> int:
        """Estimate what encoding this window costs, in tokens; micro-batches are cut by it."""

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> NDArray[np.float32]:
        """Encode one micro-batch.

        Args:
            items: the items of the windows that are known; others are passed over.

        Returns:
            (B, D), row i belongs to windows[i]: unit length, or zeros where the window gives
            no usable direction.

        Raises:
            EncoderUnavailable: the device failed; nothing was stored, a retry is safe.
        """


class SparseEncoder(Protocol):
    """Gives items and users sparse vectors beside the dense ones; :mod:`interest.sparse`."""

    def encode_items(self, items: Sequence[Item]) -> list[SparseVector]:
        """Encode items; entry i belongs to items[i], empty where nothing is known of it."""

    def encode(
        self, windows: Sequence[BehaviourWindow], items: Mapping[str, EncodedItem]
    ) -> list[SparseVector]:
        """Encode one micro-batch; entry i belongs to windows[i].

        Terms and links have unit length each, or none. The weights of a path multiply them when
        they are read.

        Args:
            items: the items of the windows that are known; of others the links count.
        """


class VectorUpdate(msgspec.Struct, frozen=True):
    """One upsert: the vector, and what of the window readers need beside it.

    ``recent`` is what :mod:`interest.recent` makes of the window.
    """

    vector: UserVector
    recent: bytes


class UserState(msgspec.Struct, frozen=True):
    """What a reader sees of one user: vector and behaviours of the same store read."""

    vector: UserVector
    recent: tuple[RecentBehaviour, ...]


class LiveUser(NamedTuple):
    """The live model, None before the first worker has set it, and one user's record of it."""

    live: LiveModel | None
    state: UserState | None


class UserVectorStore(Protocol):
    """Where user vectors are upserted and read. Every call may raise ServiceUnavailable."""

    async def ping(self) -> None:
        """Return if the store answers and takes writes."""

    async def upsert(self, updates: Sequence[VectorUpdate]) -> list[Token | Marker | None]:
        """Store each vector unless a higher token is there: compare-and-set inside the store.

        Returns:
            one entry per update: None where it was stored (token equal or higher), else what
            refused it: the higher token, or the marker of a user who was forgotten, whose token
            is equal or higher.

        Raises:
            BadInput: a vector holds NaN or infinity, or is not of unit length.
        """

    async def forget(self, user_id: str, marker: Marker) -> Marker:
        """Remove all of a user and leave the marker, in one step; again is harmless.

        The marker that stands has the highest token of the given one, of one that was there and
        of every record that is removed, and the later time of the two markers.

        Returns:
            the marker that stands now, with its ``place``. Only a token above its own passes.

        Raises:
            BadInput: the marker's hash is not that of the user, so another key made it.
        """

    async def restore_markers(self, markers: Sequence[Marker]) -> int:
        """Leave markers again in a store that lost them, and remove users they outrank.

        For a store that came back empty or as an older copy, see ``epoch``. Looks at every user
        where a marker was missing, since a marker does not tell whose it is.

        Returns:
            how many users were removed.
        """

    async def epoch(self) -> str:
        """Name the life of what is stored: another name where it may have been lost or is older."""

    async def fetch(self, user_ids: Sequence[str], model_id: str) -> list[UserState | None]:
        """Read users; None where a user has no record for this model."""

    async def fetch_live(self, user_id: str, *, recent: bool) -> LiveUser:
        """Read the live-model pointer and one user's record of that model, as of one moment.

        Args:
            recent: whether the recent behaviours are wanted, too; else there are none.
        """

    async def fetch_heads(self, user_ids: Sequence[str], model_id: str) -> list[VectorHead | None]:
        """Read tokens and encode times alone, for reconciling."""

    async def live_model(self) -> LiveModel | None:
        """Read the live-model pointer; None before the first worker has set it."""

    async def set_live_model(self, live: LiveModel) -> None:
        """Point readers to another model and collection, in one step."""

    async def publish_popular(self, partition: int, scores: Mapping[str, float]) -> None:
        """Replace the popular items of one partition: item id → log2 of its decayed count."""

    async def fetch_popular(self, k: int) -> list[tuple[str, float]]:
        """Read the ``k`` most popular items over all partitions, best first, log2 counts."""

    async def close(self) -> None:
        """Give connections back."""


class Sealer(Protocol):
    """Encrypts records at rest. A context names the place of a record, which it cannot leave."""

    @property
    def seals(self) -> bool:
        """True where records are encrypted, false where they are stored as they are."""

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt a record for its place; the key is named in it."""

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt a record.

        Raises:
            WrongKey: it needs a key that is not there; the id of the key is named.
            CorruptRecord: it was changed, or belongs to another place.
        """


class ItemStore(Protocol):
    """One collection of encoded items. Every call may raise ServiceUnavailable."""

    @property
    def shared(self) -> bool:
        """True where all processes see one collection, false where each builds its own."""

    async def open(self) -> None:
        """Create the collection and its payload indexes where they are missing.

        Raises:
            BadInput: the collection exists with another dimension.
        """

    async def ping(self) -> None:
        """Return if the store answers."""

    async def upsert(self, items: Sequence[EncodedItem]) -> None:
        """Add or replace items; durable in the store when it returns."""

    async def remove(self, item_ids: Sequence[str]) -> None:
        """Remove items; unknown ids are fine."""

    async def fetch(self, item_ids: Sequence[str]) -> dict[str, EncodedItem]:
        """Read items by id; unknown ids are left out."""

    async def search(self, query: ItemQuery) -> list[ScoredItem]:
        """Find the nearest items, best first, ties by item id."""

    async def count(self) -> int:
        """Count the items."""

    async def close(self) -> None:
        """Give connections or the engine back."""


class ItemLookup(Protocol):
    """A bounded cache over an item store, kept fresh by the ``items-encoded`` feed."""

    async def fetch(self, item_ids: Sequence[str]) -> Mapping[str, EncodedItem]:
        """Read items by id, from memory where possible; unknown ids are left out."""

    def put(self, items: Sequence[EncodedItem]) -> None:
        """Replace what is cached of these items."""

    def drop(self, item_ids: Sequence[str]) -> None:
        """Forget these items; the next fetch asks the store."""


class Recommendations(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and what it rests on.

    ``basis`` is ``vector`` (nearest items to the user's interests) or ``popular`` (the user is
    cold: no record, or one with 0 interests). Times are None where there is no record.
    """

    user_id: str
    basis: Literal["vector", "popular"]
    model_id: str
    items: tuple[ScoredItem, ...]
    event_time_ms: int | None = None
    encode_time_ms: int | None = None


class Recommender(Protocol):
    """Retrieval and ranking behind one door. Every call may raise ServiceUnavailable,
    also where no worker has set the live-model pointer yet.
    """

    async def ping(self) -> None:
        """Return if the stores answer and a live model is set."""

    async def user(self, user_id: str) -> UserVector | None:
        """Read one user's vector of the live model."""

    async def recommend(
        self,
        user_id: str,
        k: int,
        *,
        exclude_seen: bool = True,
        where: ItemFilter = ANY_ITEM,
        path: RetrievalPath | None = None,
    ) -> Recommendations:
        """Recommend ``k`` items, best first; fewer where the filter leaves fewer.

        Seen items are those in the user's behaviour window. Without a ``path`` the model's best
        is taken, or that of the settings.
        """

    async def similar(
        self, item_id: str, k: int, *, where: ItemFilter = ANY_ITEM
    ) -> list[ScoredItem] | None:
        """Find the items nearest to an item, without itself; None for an unknown item."""


class Metrics(Protocol):
    """Where measurements go; names, units and labels stand in ``interest/metrics.py``."""

    def count(self, name: str, n: float = 1, label: str = "") -> None:
        """Add to a counter."""

    def observe(self, name: str, value: float, label: str = "") -> None:
        """Add one value to a distribution."""

    def observe_many(self, name: str, values: Sequence[float], label: str = "") -> None:
        """Add values to a distribution in one call."""

    def set(self, name: str, value: float, label: str = "") -> None:
        """Set a gauge."""
