"""Epochs of training, with a validation after each and an end where nothing gets better."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoder.sequence_model import SequenceModel, SequenceShape
from encoder.sequence_packed import PackedSequence
from encoder.sequence_rows import Ints
from encoder.training.checkpoint import Checkpoint
from encoder.training.histories import Histories, Split
from encoder.training.parameters import TrainingParameters
from encoder.training.pieces import batches, cut, pack, windows_before_targets
from encoder.training.ranking import HeldOut, mean_ndcg
from encoder.training.softmax import Sampler, all_items, softmax_loss

#: Cosines are multiplied by this when training begins, and by what it learns later.
_FIRST_SCALE: Final = 16.0
_EPOCHS_OF_A_SEED: Final = 100_003
_WITHOUT_DECAY: Final = ("item_scale", "distances", "taps")


class EpochReport(NamedTuple):
    """One epoch: mean loss in nats, NDCG@10 of the validation users, how long it took."""

    epoch: int
    loss: float
    ndcg: float
    seconds: float


class Trainer:
    """Trains the sequence model of one bundle; the same seed gives the same model.

    Every random number comes from the seed and the epoch, so a run that was interrupted goes on as
    if nothing had happened.
    """

    def __init__(
        self,
        histories: Histories,
        split: Split,
        held_out: HeldOut,
        texts: NDArray[np.float32],
        parameters: TrainingParameters,
        seed: int,
        device: torch.device,
    ) -> None:
        """Prepare.

        Args:
            texts: (V + Q, F) features of items and queries.
        """
        self._histories, self._split, self._held_out = histories, split, held_out
        self._parameters, self._seed, self._device = parameters, seed, device
        self._pieces = cut(histories, split.ends, parameters.window)
        seen = np.zeros(len(texts), np.int64)  # (V + Q,) events to train on
        users = np.repeat(np.arange(len(split.ends)), np.diff(histories.starts))
        trained = np.arange(len(users)) < split.ends[users]
        np.add.at(seen, histories.rows[trained], 1)
        seen[len(histories.items) :] = 0
        #: (n,) row of each item with an embedding, and (V + Q,) its number, -1 for none.
        self.embedded = np.flatnonzero(seen)
        self.ids = np.full(len(texts), -1, np.int64)
        self.ids[self.embedded] = np.arange(len(self.embedded))
        self._is_target = histories.pulls & (self.ids[histories.rows] >= 0)
        self._sampler = (
            Sampler(seen[self.embedded], parameters.sampled_items)
            if len(self.embedded) > parameters.full_softmax_items
            else None
        )
        shape = SequenceShape(
            text_dim=texts.shape[1], dim=parameters.dim, n_layers=parameters.n_layers,
            head_dim=parameters.head_dim, n_items=len(self.embedded), n_taps=parameters.n_taps,
        )  # fmt: skip
        self.model = SequenceModel(shape, seed).to(device)
        self.model.set_dropout(parameters.dropout)
        self._log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE), device=device))
        self._texts = torch.from_numpy(texts).to(device)
        self._ids = torch.from_numpy(self.ids).to(device)
        self._optimizer = self._make_optimizer()
        self._asked = windows_before_targets(histories, split, parameters.window)

    def run(self, checkpoint: Checkpoint, on_epoch: Callable[[EpochReport], None]) -> float:
        """Train to the end; give the best validation NDCG@10, whose weights the model then has.

        Without validation users the last epoch is the best.

        Args:
            on_epoch: told after each epoch, those before an interruption included.
        """
        first, best, best_epoch = 0, -1.0, 0
        best_weights = self._weights()
        if (state := checkpoint.state) is not None:
            for line in state["log"]:
                on_epoch(EpochReport(**line))
            first, best, best_epoch = state["epoch"], state["best"], state["best_epoch"]
            best_weights = state["best_weights"]
            self.model.load_state_dict(state["model"])
            self._log_scale.data.copy_(state["log_scale"])
            self._optimizer.load_state_dict(state["optimizer"])
        for epoch in range(first, self._parameters.epochs):
            if epoch - best_epoch >= self._parameters.patience + 1:
                break
            began = time.perf_counter()
            loss = self._epoch(epoch)
            found = self.validate()
            if found > best or not len(self._held_out.targets):
                best, best_epoch, best_weights = found, epoch, self._weights()
            report = EpochReport(epoch, loss, found, time.perf_counter() - began)
            state = {
                "epoch": epoch + 1, "best": best, "best_epoch": best_epoch,
                "best_weights": best_weights, "model": self._weights(),
                "log_scale": self._log_scale.detach(), "optimizer": self._optimizer.state_dict(),
            }  # fmt: skip
            checkpoint.save(state, report._asdict())
            on_epoch(report)
        self.model.load_state_dict(best_weights)
        return best

    def validate(self) -> float:
        """Give NDCG@10 of the validation users, as the model would serve them."""
        model = self.model.eval()
        with torch.no_grad():
            known = model.items(self._texts, self._ids).cpu().numpy()
        runner = PackedSequence(model if self._device.type == "cpu" else _on_cpu(model))
        users = runner.encode(known, *self._asked)
        return mean_ndcg(users, known[: len(self._histories.items)], self._held_out)

    def _epoch(self, epoch: int) -> float:
        """Train one epoch; give the mean loss of its positions."""
        torch.manual_seed(self._seed * _EPOCHS_OF_A_SEED + epoch)  # dropout
        self.model.train()
        todo = list(batches(self._pieces, self._parameters.batch_events, (self._seed, epoch)))
        lost, n_positions = 0.0, 0
        for number, batch in enumerate(todo):
            rate = self._rate((epoch + number / len(todo)) / self._parameters.epochs)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            loss, n = self._loss(batch, (self._seed, epoch, number))
            if not n:
                continue
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._trained(), self._parameters.clip_norm)
            self._optimizer.step()
            lost += float(loss.detach()) * n
            n_positions += n
        return lost / max(1, n_positions)

    def _loss(self, batch: Ints, seed: tuple[int, ...]) -> tuple[Tensor, int]:
        """Give the mean loss of a batch and its number of positions."""
        packed = list(pack(self._histories, self._pieces, batch, self._is_target))
        targets = np.concatenate([rows.targets for rows in packed])
        target_ids = self.ids[self._histories.rows[targets]]
        negatives = (
            all_items(len(self.embedded)) if self._sampler is None else self._sampler.draw(seed)
        )
        needed = np.concatenate(
            [self.embedded[negatives.ids], self._histories.rows[targets]]
            + [rows.items.ravel() for rows in packed]
        )
        needed, places = np.unique(needed, return_inverse=True)
        at = self._there(needed)
        with self._autocast():
            ids = self._ids[at]
            by_text = torch.rand(len(at)).to(self._device) < self._parameters.id_dropout
            vectors = self.model.items(self._texts[at], ids.masked_fill(by_text, -1)).float()
            n_negatives, n = len(negatives.ids), len(targets)
            negative_rows = vectors[self._there(places[:n_negatives])]
            own = vectors[self._there(places[n_negatives : n_negatives + n])]
            first, users = n_negatives + n, []
            for rows in packed:
                items = self._there(
                    places[first : first + rows.items.size].reshape(rows.items.shape)
                )
                first += rows.items.size
                after = self.model(
                    vectors[items], self._there(rows.codes), self._there(rows.segments)
                )
                users.append(after.flatten(0, 1)[self._there(rows.slots)])
            loss = softmax_loss(
                torch.cat(users), negative_rows, own, self._log_scale.exp(),
                self._there(negatives.offsets), self._there(negatives.columns(target_ids)),
            )  # fmt: skip
        return loss, n

    def _rate(self, done: float) -> float:
        """Give the learning rate after a share of all steps."""
        warm_up, highest = self._parameters.warm_up, self._parameters.learning_rate
        if done < warm_up:
            return highest * (done / warm_up + 1e-3)
        return highest * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Decay the weights of matrices alone (Loshchilov and Hutter 2019), no norms or scales."""
        decayed: list[nn.Parameter] = []
        kept = [self._log_scale]
        for name, weight in self.model.named_parameters():
            plain = weight.dim() < 2 or name in _WITHOUT_DECAY
            (kept if plain else decayed).append(weight)
        decay = self._parameters.weight_decay
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self._parameters.learning_rate, betas=(0.9, 0.98))

    def _trained(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), self._log_scale]

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.clone() for name, weight in self.model.state_dict().items()}

    def _there(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16)


def _on_cpu(model: SequenceModel) -> SequenceModel:
    copied = SequenceModel(model.shape).eval()
    copied.load_state_dict({name: weight.cpu() for name, weight in model.state_dict().items()})
    return copied
