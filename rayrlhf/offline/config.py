"""Settings that the offline stages have in common: SFT, reward model and DPO."""

from __future__ import annotations

from typing import Self

from pydantic import Field, NonNegativeInt, PositiveInt

from rayrlhf.cluster.placement import Resources
from rayrlhf.config import Config
from rayrlhf.data.cleaning.augment import Augmentation
from rayrlhf.data.tokens.prepare import DataConfig
from rayrlhf.data.tokens.tokenise import SequenceLimit
from rayrlhf.run_directory import RunConfig, resolve
from rayrlhf.training.model_trainer import TrainingConfig


class OfflineData(DataConfig, SequenceLimit):
    """Data of an offline stage, and what to do with long rows."""

    heldout_share: float = Field(default=0.05, gt=0, lt=1)


class PairData(OfflineData):
    """Pairs of a better and a worse answer."""

    augment: Augmentation | None = None
    """Made negatives beside the real ones."""


class OfflineConfig(Config):
    """What every offline stage reads."""

    stage: str
    """Which stage reads the file; each fixes its own."""
    run: RunConfig
    model: str
    """Folder to start from."""
    data: OfflineData
    training: TrainingConfig = TrainingConfig()
    workers: Resources = Resources()
    num_epochs: PositiveInt = 1
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps, if that is sooner."""
    batch_size: PositiveInt = 32
    """Rows of one optimizer step, over all workers; how many passes that takes follows from
    `training.max_tokens_per_microbatch`."""
    evaluation_interval: NonNegativeInt = 0
    """Steps between evaluations; there is one before the first and one after the last step too. 0 is only those."""
    checkpoint_interval: NonNegativeInt = 0
    """Steps between checkpoints; the last step always has one. 0 is only that."""
    max_failures: NonNegativeInt = 2
    """How often a failed worker is restarted from the last checkpoint."""

    @property
    def models(self) -> dict[str, str]:
        """Folders of all models that the run reads, by their part in it; `start` is the one that is trained."""
        return {"start": self.model}

    def resolved(self) -> Self:
        """With absolute paths, as workers in other working directories need them."""
        return self.model_copy(update={"model": resolve(self.model), "data": self.data.resolved()})
