"""Settings shared by the offline stages: SFT, reward model and DPO."""

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
    """Data of an offline stage, and the limit on sequence lengths."""

    heldout_share: float = Field(default=0.05, gt=0, lt=1)


class PairData(OfflineData):
    """Chosen/rejected pairs."""

    augment: Augmentation | None = None
    """Synthetic negatives to add to the training pairs; null adds none."""


class OfflineConfig(Config):
    """Settings of every offline stage."""

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
    """Stop after this many optimizer steps, if that is before the end of the epochs."""
    batch_size: PositiveInt = 32
    """Rows per optimizer step, over all workers; `training.max_tokens_per_microbatch` sets how many passes that is."""
    evaluation_interval: NonNegativeInt = 0
    """Steps between evaluations; 0: none besides those before the first and after the last step."""
    checkpoint_interval: NonNegativeInt = 0
    """Steps between checkpoints; the last step always saves one. 0: only that."""
    max_failures: NonNegativeInt = 2
    """Restarts of failed workers from the last checkpoint before the run fails."""

    @property
    def models(self) -> dict[str, str]:
        """Folders of all models that the run reads; `start` is the one trained."""
        return {"start": self.model}

    def check_type(self) -> None:
        """Raises ModelFolderError if the stage cannot train models of this type."""

    def resolved(self) -> Self:
        """With absolute paths: workers have other working directories."""
        return self.model_copy(update={"model": resolve(self.model), "data": self.data.resolved()})
