"""From windows and items to a bundle: everything of ``interest train`` but files and progress."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from encoder.bundle_folder import BundleParts
from encoder.decay import DecayUserEncoder
from encoder.factory import sequence_encoders
from encoder.held_out import without_items
from encoder.items import FeatureItemEncoder
from encoder.parts import PartOfItems, Parts
from encoder.sequence import SequenceItemEncoder
from encoder.sequence_weights import LoadedSequence, loaded_sequence
from encoder.sparse_fit import fit_sparse
from encoder.sparse_space import SparseParts
from encoder.text_features import FeatureMaker, fit_text_features
from encoder.threads import usable_cores
from encoder.training.checkpoint import Checkpoint
from encoder.training.histories import Histories, Split, histories_of, split_newest
from encoder.training.loop import EpochReport, Trainer
from encoder.training.parameters import TrainingParameters
from encoder.training.paths import Served, choose_paths
from encoder.training.ranking import HeldOut
from encoder.training.text_part import POSITION_DECAYS, Choice, choose, windows_before
from interest.bundle import (
    BundleConfig,
    DecayParameters,
    FeatureWeights,
    ModelBundle,
    TextModel,
    TextPart,
    TrainingRecord,
)
from interest.encoded_items import EncodedItems
from interest.item import Item, unit
from interest.ports import ItemEncoder, UserEncoder
from interest.window import BehaviourWindow

#: More often than this, people buy again: then what they have is ranked like anything else.
_REPEATS: Final = 0.05
#: Ages do not weigh where only the order of events is trusted: ten years to forget half.
_HALF_LIFE_MS: Final = 3650 * 86_400_000
_ITEMS_PER_BATCH: Final = 512
_NO_TEXT: Final = Choice(0.0, DecayParameters().position_decay, 0.0)

Progress = Callable[[str, int, int], None]


class TrainedOn(NamedTuple):
    """The log and the catalogue, and the model that reads their texts."""

    windows: Sequence[BehaviourWindow]
    items: Sequence[Item]
    texts: ItemEncoder
    text_model: TextModel


def train(
    data: TrainedOn,
    parameters: TrainingParameters,
    *,
    seed: int,
    folder: Path,
    resume: bool,
    device: torch.device,
    threads: int,
    on_epoch: Callable[[EpochReport], None],
    progress: Progress,
    licences: Sequence[str] = (),
) -> tuple[BundleParts, Checkpoint]:
    """Train a bundle; the same data, parameters and seed give the same one.

    Args:
        folder: of checkpoint and metrics log; stays until the checkpoint is closed.
        resume: go on with the run that the folder holds.
        threads: of torch on a CPU; 0 for the cores that may be used. Sums are made in another
            order with another number, so results differ in rounding.
        progress: told of texts that are encoded.

    Raises:
        BadInput: there is too little to train on, or the folder holds another run.
        EncoderUnavailable: the device failed.
    """
    torch.set_num_threads(threads or usable_cores())
    decay = DecayParameters(half_life_ms=_HALF_LIFE_MS)
    windows = without_items(data.windows, parameters.hold_out_items, seed)
    histories = histories_of(windows, data.items, decay.bad_rating)
    split = split_newest(histories, parameters.validation_users, seed)
    held_out = held_out_of(histories, split)
    fingerprint = histories.fingerprint
    text_model = msgspec.structs.replace(data.text_model, reference="")
    key = msgspec.json.encode((fingerprint, parameters, seed, text_model), order="deterministic")
    checkpoint = Checkpoint(folder, hashlib.blake2b(key, digest_size=16).hexdigest(), resume=resume)
    vectors = checkpoint.texts(lambda: _text_vectors(histories, data.texts, progress))
    titles = [*(item.title for item in histories.items), *histories.queries]
    n_items = len(histories.items)
    fitted = fit_text_features(
        vectors[:n_items], titles[:n_items],
        n_dense=parameters.n_dense, n_terms=parameters.n_terms, seed=seed,
    )  # fmt: skip
    features = unit(FeatureMaker(fitted)(vectors, titles))  # (V + Q, F)
    trainer = Trainer(histories, split, held_out, features, parameters, seed, device)
    alone = trainer.run(checkpoint, on_epoch)
    ids = tuple(histories.items[row].item_id for row in trainer.embedded.tolist())
    loaded = loaded_sequence(trainer.model.cpu(), ids)
    n_text = min(parameters.text_dim, fitted.n_dense)
    choice = _NO_TEXT
    known = _Known(histories, features, FeatureItemEncoder(data.texts, fitted))
    if n_text and len(split.users):
        choice = _choose(histories, split, held_out, known, loaded, parameters, n_text, decay)
    decay = msgspec.structs.replace(decay, position_decay=choice.position_decay)
    sequence = msgspec.structs.replace(
        loaded.described, text=TextPart(dim=n_text, share=choice.share) if choice.share else None
    )
    sparse = _fit_sparse(histories, split)
    encoders = sequence_encoders(sequence, decay, loaded, known, torch.device("cpu"))
    chosen = choose_paths(_served(histories, split, held_out, parameters, encoders), sparse, decay)
    config = BundleConfig(
        user_encoder="sequence",
        text_model=data.text_model,
        window=parameters.window,
        decay=decay,
        features=FeatureWeights(fingerprint=fitted.fingerprint, dim=fitted.dim),
        sequence=sequence,
        sparse=chosen.sparse,
        paths=chosen.paths,
        training=TrainingRecord(
            data=fingerprint,
            n_users=len(histories.windows),
            n_items=n_items,
            n_events=len(histories.rows),
            seed=seed,
            parameters=msgspec.structs.asdict(parameters),
            metrics={
                "validation_users": float(len(split.users)),
                "ndcg@10_model": alone,
                "ndcg@10": max(alone, choice.ndcg),
                **{f"ndcg@10_{path}": found for path, found in chosen.ndcg.items()},
            },
        ),
        licences=tuple(licences),
    )
    return BundleParts(ModelBundle(config=config), fitted, loaded, sparse), checkpoint


def _fit_sparse(histories: Histories, split: Split) -> SparseParts:
    """Fit title terms on the catalogue, and links on the events that are trained on."""
    users = np.repeat(np.arange(len(split.ends)), np.diff(histories.starts))
    trained = histories.pulls & (np.arange(len(users)) < split.ends[users])
    return fit_sparse(histories.items, users[trained], histories.rows[trained])


def _served(
    histories: Histories,
    split: Split,
    held_out: HeldOut,
    parameters: TrainingParameters,
    encoders: tuple[ItemEncoder, UserEncoder],
) -> Served:
    """Encode catalogue and validation users with the encoders that will serve them."""
    items = EncodedItems(histories.items, encoders[0].encode_items(histories.items))
    windows = windows_before(histories, split, parameters.window)
    users = np.zeros((0, encoders[1].dim), np.float32)
    if windows:
        users = encoders[1].encode(windows, items)
    return Served(windows, users, items, held_out)


def held_out_of(histories: Histories, split: Split) -> HeldOut:
    """Give what is asked of the validation users; what they have is not ranked, unless people
    buy again in this log."""
    owners = np.repeat(np.arange(len(histories.windows)), np.diff(histories.starts))
    n_rows = len(histories.items) + len(histories.queries)
    n_distinct = len(np.unique(owners * n_rows + histories.rows))
    lists: list[NDArray[np.int64]] = []
    for start, target in zip(
        histories.starts[split.users].tolist(), split.targets.tolist(), strict=True
    ):
        had = np.unique(histories.rows[start:target])
        lists.append(had[had < len(histories.items)])
    if 1 - n_distinct / len(owners) > _REPEATS:
        lists = [had[:0] for had in lists]
    borders = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(had) for had in lists], out=borders[1:])
    masked = np.concatenate([np.zeros(0, np.int64), *lists])
    return HeldOut(histories.rows[split.targets], masked, borders)


class _Known:
    """Gives the features that were made already; queries are encoded."""

    def __init__(
        self, histories: Histories, features: NDArray[np.float32], encoder: ItemEncoder
    ) -> None:
        self._rows = {item.item_id: row for row, item in enumerate(histories.items)}
        self._features = features
        self._encoder = encoder
        self.dim = features.shape[1]

    def encode_items(self, items: Sequence[Item]) -> NDArray[np.float32]:
        return self._features[[self._rows[item.item_id] for item in items]]

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encoder.encode_texts(texts)


def _choose(
    histories: Histories,
    split: Split,
    held_out: HeldOut,
    known: _Known,
    loaded: LoadedSequence,
    parameters: TrainingParameters,
    n_text: int,
    decay: DecayParameters,
) -> Choice:
    """Choose the text part with the encoders that will serve it."""
    cpu = torch.device("cpu")
    windows = windows_before(histories, split, parameters.window)
    parts = Parts(parameters.dim, n_text, 0.5)
    both = SequenceItemEncoder(known, loaded, parts)
    vectors = both.encode_items(histories.items)
    learned, texts = (
        EncodedItems(histories.items, cut(vectors)) for cut in (parts.sequence, parts.text)
    )
    _, users = sequence_encoders(loaded.described, decay, loaded, known, cpu)
    text_users = {}
    for position_decay in POSITION_DECAYS:
        parameters_ = msgspec.structs.replace(decay, position_decay=position_decay)
        encoder = DecayUserEncoder(PartOfItems(both, parts, text=True), parameters_)
        text_users[position_decay] = encoder.encode(windows, texts)
    return choose(
        (users.encode(windows, learned), learned.vectors), text_users, texts.vectors, held_out
    )


def _text_vectors(
    histories: Histories, texts: ItemEncoder, progress: Progress
) -> NDArray[np.float32]:
    """Encode items and queries: (V + Q, E)."""
    items, queries = histories.items, histories.queries
    vectors = np.zeros((len(items) + len(queries), texts.dim), np.float32)
    for first in range(0, len(items), _ITEMS_PER_BATCH):
        batch = items[first : first + _ITEMS_PER_BATCH]
        vectors[first : first + len(batch)] = texts.encode_items(batch)
        progress("texts", first + len(batch), len(vectors))
    for first in range(0, len(queries), _ITEMS_PER_BATCH):
        said = queries[first : first + _ITEMS_PER_BATCH]
        place = len(items) + first
        vectors[place : place + len(said)] = texts.encode_texts(said)
        progress("texts", place + len(said), len(vectors))
    return vectors
