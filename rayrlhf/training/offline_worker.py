"""`OfflineWorker`: one rank of SFT, reward-model training or DPO, a plain class around a `ModelTrainer`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rayrlhf.metrics import prefixed
from rayrlhf.training.batching import plan_microbatches
from rayrlhf.training.model_trainer import MicroLoss, ModelTrainer, StepReport, TrainingConfig
from rayrlhf.training.parallel import Ranks, autocast

RowPass = Callable[[np.ndarray], Tensor]
"""rows [b] → K numbers for each of them, [K, b]."""


class OfflineWorker(ABC):
    """One rank of a stage that trains on a fixed data set."""

    prefix: ClassVar[str]
    """Metrics of training steps are named `prefix/…`."""

    def __init__(self, trainer: ModelTrainer, tokenizer: Any) -> None:
        self.trainer = trainer
        self.tokenizer = tokenizer

    @abstractmethod
    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        """One optimizer step on `rows`, split over ranks. Returns metrics over all ranks."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Metrics on the held-out rows, over all ranks."""

    @abstractmethod
    def before_save(self) -> None:
        """Add to the model what is known only after training."""

    def save(self, folder: Path, progress: dict[str, int]) -> None:
        """Write the model as a Hugging Face folder to `folder/model`, and the training state to `folder/state.pt`."""
        self.before_save()
        weights = self.trainer.state_dict()
        state = {"trainer": self.trainer.training_state(), "progress": progress}
        if self.trainer.ranks.rank == 0:
            self.trainer.inner.save(folder / "model", self.tokenizer, weights)
            torch.save(state, folder / "state.pt")

    def restore(self, folder: Path) -> dict[str, int]:
        """Continue from what `save` wrote. Returns its progress."""
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        self.trainer.load_training_state(state["trainer"])
        return dict(state["progress"])

    def optimizer_step(self, lengths: np.ndarray, loss_of: MicroLoss) -> dict[str, float]:
        """One optimizer step on rows of these lengths ([B] tokens). Returns metrics over all ranks, with the prefix."""
        report = self.trainer.step(self.trainer.plan(lengths), loss_of)
        return prefixed(self.prefix, merge_reports(report, self.trainer.ranks.world_size))

    def to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.trainer.ranks.device)


def seed_step(*numbers: int) -> None:
    """Seed one optimizer step's random numbers (dropout) with (run seed, step, …, rank).

    A resumed run then uses the same numbers as one that never stopped, and no random state has to be saved.
    """
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def gather_objects(value: Any, world_size: int) -> list[Any]:
    """`value` of every rank, ordered by rank."""
    if world_size == 1:
        return [value]
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, value)
    return gathered


@torch.no_grad()
def score_rows(lengths: np.ndarray, config: TrainingConfig, ranks: Ranks, row_pass: RowPass) -> np.ndarray:
    """`row_pass` over all rows of these lengths ([N] tokens), split over ranks: [K, N] float64, the same on every
    rank."""
    own: list[tuple[list[int], np.ndarray]] = []
    for picked in plan_microbatches(lengths, config.max_tokens_per_microbatch, ranks.world_size)[ranks.rank]:
        with autocast(ranks.device, config.compute_precision):
            scores = row_pass(np.array(picked or [0]))
        if picked:
            own.append((picked, scores.float().cpu().numpy()))
    gathered = [part for parts in gather_objects(own, ranks.world_size) for part in parts]
    result = np.zeros((len(gathered[0][1]), len(lengths)), dtype=np.float64)
    for rows, of_rows in gathered:
        result[:, rows] = of_rows
    return result


def merge_reports(report: StepReport, world_size: int) -> dict[str, float]:
    """One step's metrics over all ranks."""
    return StepReport.merge(gather_objects(report, world_size))
