"""The reward of a trained reward model."""

from __future__ import annotations

from typing import Literal

from rayrlhf.config import Config
from rayrlhf.models.scalar import Pooling


class RewardModelReward(Config):
    """r(x, y) = the scalar head's output after the last token."""

    kind: Literal["reward_model"] = "reward_model"
    model: str
    """Folder (or hub name) of a sequence-classification model with one label."""
    pooling: Pooling = "last"
    normalize: bool = True
    """Subtract the mean and divide by the standard deviation that training stored in the folder."""
