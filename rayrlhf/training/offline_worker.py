"""Workers of SFT, reward-model training and DPO: plain classes that one rank builds around a `ModelTrainer`."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rayrlhf.training.model_trainer import ModelTrainer, StepReport


class OfflineWorker(ABC):
    """One rank of a stage that trains on a fixed data set."""

    def __init__(self, trainee: ModelTrainer, tokenizer: Any) -> None:
        self.trainee = trainee
        self.tokenizer = tokenizer

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Training rows, over all ranks."""

    @abstractmethod
    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        """One optimizer step on `rows`, shared out over ranks; global metrics."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Metrics on the held-out rows, over all ranks."""

    @abstractmethod
    def before_save(self) -> None:
        """Last touches to the model before it is written."""

    def save(self, folder: Path, progress: dict[str, int]) -> None:
        """The model as a Hugging Face folder in `folder/model`, and what is needed to go on in `folder/state.pt`."""
        self.before_save()
        weights = self.trainee.state_dict()
        state = {"trainee": self.trainee.training_state(), "progress": progress}
        if self.trainee.ranks.rank == 0:
            self.trainee.inner.save(folder / "model", self.tokenizer, weights)
            torch.save(state, folder / "state.pt")

    def restore(self, folder: Path) -> dict[str, int]:
        """Go on from what `save` wrote; returns its progress."""
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        self.trainee.load_training_state(state["trainee"])
        return dict(state["progress"])

    def temporary_folder(self) -> tempfile.TemporaryDirectory[str]:
        """A folder to save into before it is handed to Ray Train."""
        return tempfile.TemporaryDirectory(prefix="rayrlhf-")

    def plan(self, lengths: np.ndarray) -> list[list[int]]:
        """This rank's micro-batches of rows with these lengths."""
        return self.trainee.plan(lengths)

    def to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.trainee.ranks.device)


def seed_step(run_seed: int, step: int, rank: int) -> None:
    """Let one optimizer step draw its random numbers (dropout) from (run seed, step, rank), and from nothing before it:
    a run that goes on from a checkpoint then draws what one that never stopped draws, and no state need be saved."""
    torch.manual_seed(int(np.random.SeedSequence([run_seed, step, rank]).generate_state(1)[0]))


def gather_objects(value: Any, world_size: int) -> list[Any]:
    """`value` of every rank, in order of rank."""
    if world_size == 1:
        return [value]
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, value)
    return gathered


def merge_reports(report: StepReport, world_size: int) -> dict[str, float]:
    """One step's metrics over all ranks."""
    return StepReport.merge(gather_objects(report, world_size))


def sum_over_ranks(values: Sequence[float], world_size: int) -> list[float]:
    """Element-wise sum over ranks."""
    return [float(total) for total in np.sum(gather_objects(list(values), world_size), axis=0)]
