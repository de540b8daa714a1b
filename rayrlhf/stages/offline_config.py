"""Settings that SFT and reward-model training have in common."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt

from rayrlhf.actors.placement import Resources
from rayrlhf.config import Config
from rayrlhf.data.templates import ChatTemplate, Template
from rayrlhf.data.tokens import Overlong
from rayrlhf.run_directory import RunConfig
from rayrlhf.workers.trainee import TrainingConfig


class OfflineData(Config):
    """Data files of an offline stage."""

    train: list[str] = Field(min_length=1)
    heldout: list[str] = Field(default=[])
    """Files to evaluate on; without any, a share of the training prompts is held out."""
    heldout_share: float = Field(default=0.05, gt=0, lt=1)
    template: Template = ChatTemplate()
    max_tokens: PositiveInt = 512
    """Prompt and answer together."""
    overlong: Overlong = "cut"
    """Rows over `max_tokens`: cut the answer, or drop the row; rows without room for any answer are dropped."""


class OfflineConfig(Config):
    """What SFT and reward-model training have in common."""

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
