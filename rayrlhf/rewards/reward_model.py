"""The reward of a trained reward model."""

from __future__ import annotations

from typing import Literal, Self

from rayrlhf.rewards.base import BaseReward
from rayrlhf.run_directory import resolve
from rayrlhf.types import Pooling


class RewardModelReward(BaseReward):
    """r(x, y) = the scalar head's output after the last token."""

    kind: Literal["reward_model"] = "reward_model"
    model: str
    """Folder (or hub name) of a sequence-classification model with one label."""
    pooling: Pooling = "last"
    normalize: bool = True
    """Subtract the mean and divide by the standard deviation that training stored in the folder."""

    def resolved(self) -> Self:
        return self.model_copy(update={"model": resolve(self.model)})
